"""Celery's entry: `main(settings)` is the process `pacs worker`; its pool children run one job at a time.

A pool child opens the archive once, under a writer name of its own, and runs each job in an isolated process of its own
(`pacs.processing.runner`). A worker of sends alone has threads instead: a send waits for others, and computes nothing that
could take its process along. Everything dies with the supervisor: the worker and its pool share a process group, a pool child
asks the kernel to end it with its worker, and the isolated process holds a pipe whose other end is the pool child's.
"""

import os
import signal
import threading
from typing import Any

from billiard import current_process  # type: ignore[import-untyped]  # comes with Celery, without types
from celery import shared_task, signals
from celery.worker.request import Request

from pacs import logs
from pacs.archive import Archive
from pacs.dimse import push as dimse_push
from pacs.model.errors import ConfigurationError
from pacs.model.job import SEND
from pacs.processing.api import Spec
from pacs.processing.child import THREAD_VARIABLES, warm_up
from pacs.processing.registry import discover
from pacs.processing.runner import run_job
from pacs.queue import QUEUES, TASK, broker_url, make_app
from pacs.settings import Settings, as_environment, load
from pacs.web import push as web_push

log = logs.get_logger(__name__)
TRIES = 8
SENDER = "sender"
CARRIERS = {"dicom": dimse_push.carry, "web": web_push.carry}


class _Pool:
    """What one pool child keeps between jobs."""

    archive: Archive | None = None
    registry: dict[str, Spec] | None = None
    stop = threading.Event()
    name = "worker"
    worker: Any = None
    """Celery's worker, in its own process only."""
    opening = threading.Lock()


class Ring(Request):
    """A message of the bell; where it cannot be acknowledged, the worker connects to its broker again.

    Celery only logs that. With as many messages out as it has places it listens to nobody, so that it would notice the loss of
    its broker by nothing else, and be deaf for ever.
    """

    def acknowledge(self) -> None:
        """Acknowledge, and see whether that came about."""
        super().acknowledge()
        # Not kombu's "current" event loop: there is none any more once the worker has connected again.
        if not self.message.acknowledged and _Pool.worker is not None:
            _Pool.worker.hub.call_soon(_broker_lost)


def _broker_lost() -> None:
    """Raise in the worker's event loop what makes it connect again."""
    raise ConnectionError("the broker was away when a job ended")


@shared_task(name=TASK, Request=Ring)
def run(job_id: str) -> None:
    """Run one job; the row says how it ended."""
    if _Pool.stop.is_set():
        return  # the row stays queued; it is rung for again
    archive, registry = _opened()
    # The bell says that there is work; which is first, the rows say. Whoever loses the race for one looks for the next.
    for _ in range(TRIES):
        chosen = archive.index.jobs.first_due(job_id)
        if chosen is None:
            return
        state = run_job(archive, registry, chosen, worker=_writer(), stop=_Pool.stop, carriers=CARRIERS)
        if state is not None:
            return


def _opened() -> tuple[Archive, dict[str, Spec]]:
    """Return the archive and the processors, which the first job of this process finds unopened."""
    with _Pool.opening:
        if _Pool.archive is None or _Pool.registry is None:
            settings = load()
            # Who only sends needs no processors, nor their libraries in memory.
            _Pool.registry = {} if _Pool.name == SENDER else discover(settings.plugins_path)
            _Pool.archive = Archive.open(settings, writer=_writer())
        return _Pool.archive, _Pool.registry


def main(settings: Settings, queues: str = "") -> int:
    """Work until SIGTERM; running jobs go back to the queue then. Returns the exit code.

    `queues` are those to take jobs from, instead of `processing.queues`.
    """
    chosen = _queues(queues or settings.processing.queues)
    sends = chosen == [SEND]
    _Pool.name = SENDER if sends else "worker"
    concurrency = settings.processing.concurrency or max(1, (os.cpu_count() or 2) // 2)
    concurrency = settings.processing.senders if sends else concurrency
    threads = str(max(1, (os.cpu_count() or 1) // concurrency))
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, threads)
    # Pool children are fresh interpreters: they read the same settings from the environment.
    os.environ.update(as_environment(settings))
    app = make_app(broker_url(settings.broker.url, settings.home))
    worker = app.Worker(
        queues=chosen,
        concurrency=concurrency,
        pool="threads" if sends else "prefork",
        hostname=f"pacs-{os.getpid()}@%h",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel=None,
    )

    _Pool.worker = worker

    def hand_back(**_: Any) -> None:
        # Warm shutdown waits for running tasks; ours need not run to their end, because the row brings them back.
        if sends:
            _Pool.stop.set()
            return
        for process in list(getattr(getattr(worker.pool, "_pool", None), "_pool", [])):
            try:
                os.kill(process.pid, signal.SIGTERM)
            except (ProcessLookupError, TypeError):
                continue

    signals.worker_shutting_down.connect(hand_back, weak=False)
    log.info("worker_started", count=concurrency)
    worker.start()
    _close()
    return int(worker.exitcode or 0)


def _queues(wanted: str) -> list[str]:
    chosen = wanted.replace(",", " ").split()
    if not chosen or not set(chosen) <= set(QUEUES):
        raise ConfigurationError(f"processing.queues must name some of {', '.join(QUEUES)}")
    return chosen


@signals.setup_logging.connect(weak=False)
def _our_logs(**_: Any) -> None:
    """Keep Celery from configuring logs: ours let no message of a library through."""
    if os.environ.get("FORKED_BY_MULTIPROCESSING"):
        logs.configure(os.environ.get("PACS_LOGS_LEVEL") or "info", _writer())


@signals.worker_process_init.connect(weak=False)
def _pool_child_started(**_: Any) -> None:
    signal.signal(signal.SIGTERM, lambda *_: _Pool.stop.set())
    warm_up()


@signals.worker_process_shutdown.connect(weak=False)
def _pool_child_ends(**_: Any) -> None:
    _close()


def _close() -> None:
    if _Pool.archive is not None:
        _Pool.archive.close()
        _Pool.archive = None


def _writer() -> str:
    return f"{_Pool.name}-{getattr(current_process(), 'index', 0)}"
