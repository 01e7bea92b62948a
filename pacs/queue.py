"""The bell: Celery carries a job id and nothing else, over Valkey or Redis (TCP or Unix socket) or RabbitMQ.

The truth is the jobs table. A message that is lost is sent again by the scheduler, one that comes twice the claim refuses,
so nothing here needs to be durable; the settings below keep messages few, small and quickly redelivered.
"""

from pathlib import Path
from typing import Any

from celery import Celery
from kombu import Queue as MessageQueue
from kombu.exceptions import KombuError
from kombu.exceptions import OperationalError as BrokerError

from pacs.model.errors import ConfigurationError, Unavailable
from pacs.model.job import SEND

TASK = "pacs.run"
QUEUES = ("cpu", "heavy", "gpu", SEND)
TRANSPORTS = ("redis", "rediss", "redis+socket", "amqp", "amqps", "memory")
VISIBILITY_S = 12 * 3600
"""Redis gives a message that is not acknowledged in this time to somebody else (celery#5935): longer than any job may run."""


def broker_url(url: str, home: Path) -> str:
    """Return the broker's URL: the one of the settings, else the bundled broker's socket in the home."""
    return url or f"redis+socket://{home / 'run' / 'broker.sock'}"


def make_app(url: str) -> Celery:
    """Return the Celery application for a broker.

    Raises `ConfigurationError` for a transport that this archive does not use.
    """
    if url.partition("://")[0] not in TRANSPORTS:
        raise ConfigurationError("broker.url must begin with redis://, redis+socket://, rediss://, amqp:// or amqps://")
    app = Celery("pacs", broker=url, include=["pacs.worker"], set_as_current=False)
    app.conf.update(
        # A job whose worker dies is delivered again at once; the claim and its attempts end what kills its worker for ever.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_serializer="json",
        accept_content=["json"],
        task_default_queue="cpu",
        task_queues=[MessageQueue(name) for name in QUEUES],
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=3.0,
        # Native libraries (ITK, OpenCV, OpenMP) are not safe after a fork; see docs of Celery 5.7, worker_pool_start_method.
        worker_pool_start_method="spawn",
        worker_proc_alive_timeout=60.0,
        worker_max_tasks_per_child=50,
        worker_max_memory_per_child=2_000_000,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_send_sent_event=False,
        broker_transport_options=_transport_options(url),
    )
    return app


class CeleryQueue:
    """`pacs.ports.Queue` over Celery."""

    def __init__(self, url: str) -> None:
        self._app = make_app(url)
        # Ringing must not wait for a broker that is away: the scheduler comes again, and its rows wait well.
        patience = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
        self._app.conf.broker_transport_options = {**self._app.conf.broker_transport_options, **patience}

    def ring(self, job_id: str, queue: str) -> None:
        """Tell some worker that `job_id` is due. Raises `Unavailable` where the broker is away."""
        try:
            self._app.send_task(TASK, args=(job_id,), queue=queue, retry=False, ignore_result=True)
        except (BrokerError, KombuError, OSError) as error:
            raise Unavailable("the broker is away") from error

    def close(self) -> None:
        """Release connections."""
        self._app.close()


def _transport_options(url: str) -> dict[str, Any]:
    if not url.startswith("redis"):
        return {}
    return {
        "visibility_timeout": VISIBILITY_S,
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
        "socket_connect_timeout": 3.0,
        "socket_keepalive": not url.startswith("redis+socket"),
    }
