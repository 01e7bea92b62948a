"""Run a command that dies with its grandparent: ``python guard.py FD GRACE -- command…``

FD is the read end of a pipe whose write end only the supervisor holds. When the supervisor goes, even by kill -9, the pipe
closes; the command's whole process group then gets SIGTERM and, GRACE seconds later, SIGKILL. Standard library only, so that
it starts at once and runs by its path.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

PR_SET_PDEATHSIG = 1


def _die_with_guard() -> None:
    # Linux: should the guard itself be killed, the kernel takes the command along. Elsewhere the group is all there is.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> int:
    """Run, watch, and return the command's exit code (128 + signal if a signal ended it)."""
    descriptor, grace_s, command = int(sys.argv[1]), float(sys.argv[2]), sys.argv[4:]
    child = subprocess.Popen(command, start_new_session=True, preexec_fn=_die_with_guard)

    def end(number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)

    def watch() -> None:
        with contextlib.suppress(OSError):
            os.read(descriptor, 1)
        end(signal.SIGTERM)
        time.sleep(grace_s)
        end(signal.SIGKILL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: end(received))
    threading.Thread(target=watch, daemon=True).start()
    code = child.wait()
    # What the command left behind in its group goes with it.
    end(signal.SIGKILL)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
