"""Associations of pynetdicom's client that keep their reactor out of the way.

pynetdicom's requestor has a thread that reads messages too; `send_c_store` and its like pause it first. The pause has a gap:
the thread says that it is paused before it looks whether it should be, so that on a busy machine it may still take the answer
of a fast server for a request ("Received unexpected C-STORE service message"), and the sender waits in vain. Here it stays
paused until the association ends: a requestor needs it for nothing else than to notice an abort between two requests.
"""

import threading
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association


class _Pause(threading.Event):
    """Lets nobody through until the association ends."""

    def __init__(self, association: Association) -> None:
        super().__init__()
        self.reached = threading.Event()
        self._association = association

    def wait(self, timeout: float | None = None) -> bool:
        self.reached.set()
        while not self._association._kill:
            super().wait(0.05)
        return True

    def set(self) -> None:
        """Not before the end: this is what `send_c_store` calls when it has its answer."""


def associate(ae: AE, host: str, port: int, **options: Any) -> Association:
    """Do as `ae.associate(host, port, **options)` does, with the reactor paused where there is an association."""
    association = ae.associate(host, port, **options)
    if association.is_established:
        pause, before = _Pause(association), association._reactor_checkpoint
        association._reactor_checkpoint = pause
        before.set()
        assert pause.reached.wait(10)
    return association
