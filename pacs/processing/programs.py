"""Programs and containers as processors: files in, files and `results.json` out; `[command]` and `[container]` of a manifest.

    [command]
    argv = ["python3", "{here}/lungs.py", "{in}", "{out}", "{level}"]   # {here}: the folder of the manifest
    input = "nifti"                          # or "dicom"

    [container]
    image = "example.org/lungs@sha256:…"     # by digest, so that a version stays what it is
    argv = ["/in", "/out", "{level}"]        # {in} and {out} are /in and /out
    engine = "podman"                        # or "docker", or a path to one; the first that is there where absent
    gpu = false

In the folder `in` are `0.nii`, `1.nii`, … (or folders `0`, `1`, … of DICOM files) and `job.json` with parameters and what each
is; nothing identifies a patient, for what is in the archive does not. The program writes into `out`. Exit code 0 is success, 75
(EX_TEMPFAIL) asks for another try, anything else fails the job; what it prints is dropped, for it may quote values. It gets no
setting of ours, works in memory, and goes with its job. A container has no network, no right, a file system that it cannot
write to, and is removed by name however its job ends.
"""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pacs.model.errors import ConfigurationError
from pacs.processing import files
from pacs.processing.api import Parameter, Run, Transient
from pacs.processing.outputs import Output
from pacs.processing.series import Series, Study

TRY_AGAIN = 75
ENGINES = ("podman", "docker")
_COMMAND_KEYS = frozenset(("argv", "input"))
_CONTAINER_KEYS = _COMMAND_KEYS | {"image", "engine", "gpu"}
CleanUp = Callable[[str], Sequence[Sequence[str]]]


class ProgramFailed(Exception):
    """A program ended with another exit code than 0 and 75."""


def processor(
    name: str, table: Mapping[str, Any], path: Path, runner: str, parameters: Sequence[Parameter]
) -> tuple[Callable[..., Iterator[Output]], CleanUp | None]:
    """Return the function of a manifest with `[command]` or `[container]`, and what removes its container."""
    given = table[runner]
    unknown = sorted(given.keys() - (_COMMAND_KEYS if runner == "command" else _CONTAINER_KEYS))
    if unknown:
        raise ConfigurationError(f"[{runner}] has no key {unknown[0]}")
    argv = given["argv"]
    if not (isinstance(argv, list) and all(isinstance(one, str) for one in argv) and (argv or runner == "container")):
        raise ConfigurationError(f"[{runner}] argv must be a list of texts")
    kind = given.get("input", "nifti")
    if kind not in ("nifti", "dicom"):
        raise ConfigurationError(f"[{runner}] input must be nifti or dicom")
    described = table.get("output", [])
    files.check(described)
    known = {one.name for one in parameters} | {"in", "out", "here"}
    try:
        [one.format_map(dict.fromkeys(known, "")) for one in argv]
    except (KeyError, ValueError, IndexError) as error:
        raise ConfigurationError(f"[{runner}] argv: {{{error}}} is neither a parameter nor in, out or here") from error
    if runner == "container":
        _check_image(given)

    def run(subject: Series | Study, job: Run, **values: Any) -> Iterator[Output]:
        """Write, run, read."""
        series = [subject] if isinstance(subject, Series) else subject.series
        folder = Path.cwd()
        for one in ("in", "out"):
            (folder / one).mkdir()
        job.progress(0.05, "writing files")
        about = [files.write(one, folder / "in" / str(number), kind) for number, one in enumerate(series)]
        (folder / "in" / "job.json").write_text(json.dumps({"processor": name, "parameters": values, "series": about}))
        job.progress(0.1, "running")
        places = {"in": str(folder / "in"), "out": str(folder / "out"), "here": str(path.parent)}
        if runner == "container":
            command = container_command(given, folder, values, name=container_name(job.job_key), limits=table)
        else:
            command = [one.format_map({**values, **places}) for one in argv]
        _run(command, folder)
        job.progress(0.9, "reading results")
        yield from files.outputs(series[0], folder / "out", described)

    if runner == "command":
        return run, None
    return run, lambda job_key: [[engine_of(given) or "", "rm", "--force", container_name(job_key)]]


def container_name(job_key: str) -> str:
    """Return the name of a job's container, which says nothing but that it is ours."""
    return f"pacs-{hashlib.sha256(job_key.encode()).hexdigest()[:20]}"


def engine_of(given: Mapping[str, Any]) -> str | None:
    """Return the container engine that is there."""
    wanted = [str(given["engine"])] if "engine" in given else list(ENGINES)
    return next((found for one in wanted if (found := shutil.which(one))), None)


def container_command(
    given: Mapping[str, Any], folder: Path, values: Mapping[str, Any], *, name: str, limits: Mapping[str, Any]
) -> list[str]:
    """Return the command line that runs a container: no network, no rights, nothing to write to but `out` and memory.

    Raises `Transient` where there is no engine: it may come back.
    """
    engine = engine_of(given)
    if engine is None:
        raise Transient("there is no container engine")
    memory_mb = int(limits.get("memory_mb") or 4096)
    places = {"in": "/in", "out": "/out", "here": "/in"}
    return [
        engine,
        "run",
        "--rm",
        f"--name={name}",
        "--pull=never",
        "--network=none",
        "--read-only",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--pids-limit=512",
        f"--memory={memory_mb}m",
        f"--memory-swap={memory_mb}m",
        f"--cpus={os.environ.get('OMP_NUM_THREADS') or os.cpu_count() or 1}",
        *(["--userns=keep-id"] if Path(engine).name == "podman" else []),
        f"--user={os.getuid()}:{os.getgid()}",
        f"--tmpfs=/tmp:rw,nosuid,nodev,size={memory_mb}m",
        "--env=HOME=/tmp",
        f"--volume={folder / 'in'}:/in:ro",
        f"--volume={folder / 'out'}:/out:rw",
        *(["--gpus=all"] if given.get("gpu") else []),
        str(given["image"]),
        *(one.format_map({**values, **places}) for one in given["argv"]),
    ]


def _check_image(given: Mapping[str, Any]) -> None:
    digest = str(given["image"]).rpartition("@")[2]
    if not digest.startswith("sha256:") or len(digest) != 71:
        raise ConfigurationError("[container] image must end with @sha256: and the digest, so that a version stays what it is")
    if Path(given.get("engine", ENGINES[0])).name not in ENGINES:
        raise ConfigurationError(f"[container] engine must be one of {', '.join(ENGINES)}")


def _run(command: Sequence[str], folder: Path) -> None:
    """Run to its end; the worker's clock ends it with the job's process group."""
    environment = {key: value for key, value in os.environ.items() if key not in ("HOME", "TMPDIR")}
    (folder / "tmp").mkdir()
    ended = subprocess.run(
        command,
        cwd=folder,
        env={**environment, "HOME": str(folder / "tmp"), "TMPDIR": str(folder / "tmp")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if ended.returncode == TRY_AGAIN:
        raise Transient("the program asks for another try")
    if ended.returncode != 0:
        # Only a trial shows the message; a job tells class and place.
        raise ProgramFailed(f"exit code {ended.returncode}: {ended.stderr[-2000:].decode(errors='replace').strip()}")
