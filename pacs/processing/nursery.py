"""Where isolated processes come from: `python -I -m pacs.processing.nursery CONTROL`, which has imported and done nothing.

Importing NumPy, SimpleITK, OpenCV and highdicom takes a second or more, a fork of a process that has them some milliseconds.
The nursery is a fresh program with an empty environment, so there is no key, no setting and no data set in the memory that its
children inherit. It imports, but computes nothing: native libraries make their threads at first use, which is after the fork.

For each request it forks a keeper, and the keeper forks the process of the job. The keeper watches LIFE, whose other end only
the worker holds: when the worker lets go, even by kill -9, the keeper kills the job's process group, whatever native code is
doing; it ends what the job may have left behind (a container), and tells through STATUS first the process's id, then how it
ended.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

WARM = (
    "cv2",
    "SimpleITK",
    "onnxruntime",
    "pydicom.pixels",
    "pacs.processing.derive",
    "pacs.processing.validate",
    "pacs.processing.registry",
    "pacs.processing.isolated",
    "pacs.processing.wire",
)
"""Imported once; not the plug-ins, because what they do when they are imported may hang or end the process."""

_MOST_REQUEST = 1 << 16


def main() -> None:
    """Fork a keeper for every request, until the worker is gone."""
    control = socket.socket(fileno=int(sys.argv[1]))
    if sys.platform == "linux":  # elsewhere system libraries must not be in use at a fork: children import for themselves
        for name in WARM:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are nobody's to wait for
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, _MOST_REQUEST, 4)
        if not data:
            return
        if os.fork() == 0:
            control.close()
            try:
                _keep(json.loads(data), descriptors)
            finally:
                os._exit(1)
        for descriptor in descriptors:
            os.close(descriptor)


def _keep(request: dict[str, Any], descriptors: Sequence[int]) -> None:
    """Fork the job's process, wait for its end or the worker's, and leave nothing of it."""
    incoming, outgoing, life, status = descriptors
    # Out of every group: it must outlive a signal to the worker's, and a kill of the job's.
    os.setpgid(0, 0)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    job = os.fork()
    if job == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in (life, status, woken, wake):
            os.close(descriptor)
        os.setpgid(0, 0)
        _become(request["folder"], incoming, outgoing)
    with contextlib.suppress(OSError):
        os.setpgid(job, job)
    os.close(incoming)
    os.close(outgoing)
    os.write(status, f"{job}\n".encode())
    while True:
        ready = select.select([life, woken], [], [])[0]
        if woken in ready:
            os.read(woken, 64)
        # Looked at, but not reaped: until the group is killed, its number must not belong to anybody else.
        if life in ready or os.waitid(os.P_PID, job, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(job, signal.SIGKILL)  # also what the processor itself may have started
    code = os.waitpid(job, 0)[1]
    _clean_up(request)
    with contextlib.suppress(OSError):
        os.write(status, f"{os.waitstatus_to_exitcode(code)}\n".encode())
    os._exit(0)


def _become(folder: str, incoming: int, outgoing: int) -> None:
    import tempfile

    from pacs.processing import isolated

    os.chdir(folder)
    os.environ.update(HOME=folder, TMPDIR=folder)
    tempfile.tempdir = None
    isolated.main(incoming, outgoing)


def _clean_up(request: dict[str, Any]) -> None:
    for command in request["afterwards"]:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20, check=False
            )
    shutil.rmtree(request["folder"], ignore_errors=True)


if __name__ == "__main__":
    main()
