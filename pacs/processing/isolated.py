"""The isolated process of one job, forked by `pacs.processing.nursery`, with two pipe ends.

It gets data sets through one, runs one processor, and sends objects, progress and the end through the other. It holds no key,
no setting and no database. It may not write files (RLIMIT_FSIZE is 0), unless its processor is a program that needs some, in a
folder in memory: pixels never touch a disk in the clear.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path


def _limit(memory_mb: int, cpu_s: float, files: bool) -> None:
    import resource

    wanted = [
        (resource.RLIMIT_FSIZE, memory_mb << 20 if files else 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, max(1, int(cpu_s))),
    ]
    if memory_mb:
        wanted.append((resource.RLIMIT_AS, memory_mb << 20))
    for kind, limit in wanted:
        try:
            hard = resource.getrlimit(kind)[1]
            ceiling = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.setrlimit(kind, (ceiling, ceiling))
        except (OSError, ValueError):
            continue  # macOS does not take every limit


def main(incoming: int, outgoing: int) -> None:
    """Run one job; every way out but a kill says why through `outgoing`."""
    from pacs.processing import wire

    reader = wire.Reader(incoming)
    head, _ = reader.read()
    _limit(int(head["memory_mb"]), float(head["cpu_s"]), bool(head.get("files")))
    sys.dont_write_bytecode = True
    try:
        (_clean if "cleaner" in head else _work)(head, reader, outgoing)
    except wire.Closed:
        os._exit(1)
    except BaseException as error:
        wire.write(outgoing, _told(error) | (_quoted(error) if head.get("talks") else {}))
    os._exit(0)


def _work(head: dict[str, object], reader: object, outgoing: int) -> None:
    import resource
    from io import BytesIO
    from typing import Any, cast

    from pydicom import dcmread
    from pydicom.dataset import Dataset

    from pacs.processing import derive, registry, validate, wire
    from pacs.processing.api import Run
    from pacs.processing.series import Series, Study

    given = cast(dict[str, Any], head)
    spec = registry.load_one(given["module"], given["path"], given["processor"])
    inputs: list[list[Dataset]] = [[] for _ in range(given["series"])]
    known: set[str] = set()
    while True:
        message, payload = cast(wire.Reader, reader).read()
        if message.get("end"):
            break
        dataset = dcmread(BytesIO(payload), force=True)
        dataset.file_meta.TransferSyntaxUID = message["transfer_syntax_uid"]
        known.add(str(dataset.SOPInstanceUID))
        inputs[message["series"]].append(dataset)
    study_instance_uid = str(inputs[0][0].StudyInstanceUID)
    series = [Series(one) for one in inputs]
    subject = series[0] if spec.level == "series" else Study(series)

    def report(fraction: float, note: str) -> None:
        wire.write(outgoing, {"progress": fraction, "note": note})

    provenance = derive.Provenance(given["job_key"], spec.name, spec.version, given["parameters"])
    count = 0
    for made in derive.derive(spec.call(subject, Run(_seldom(report), given["job_key"]), given["parameters"]), provenance):
        encoded = derive.encode(made.dataset)
        wrong = validate.findings(made, encoded, known, study_instance_uid)
        if wrong:
            wire.write(outgoing, {"invalid": wrong[:8]})
            return
        known.add(str(made.dataset.SOPInstanceUID))
        names = {"sop_class_uid": str(made.dataset.SOPClassUID), "sop_instance_uid": str(made.dataset.SOPInstanceUID)}
        wire.write(outgoing, {"output": names}, [encoded])
        count += 1
    wire.write(outgoing, {"done": count, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10})


def _clean(head: dict[str, object], reader: object, outgoing: int) -> None:
    """Clean held images, group after group: until the worker has no more and ends this process.

    What is known of the study comes before the first of them.
    """
    from typing import Any, cast

    from pacs.processing import cleaners, wire

    cleaner = cleaners.CLEANERS[str(head["cleaner"])].load()
    located: list[cleaners.Located] = []
    options = {**cast(dict[str, Any], head["options"]), "located": located}

    def report(fraction: float, note: str) -> None:
        wire.write(outgoing, {"progress": fraction, "note": note})

    while True:
        images: dict[str, cleaners.HeldImage] = {}
        while True:
            message, payload = cast(wire.Reader, reader).read()
            if message.get("end"):
                break
            if "located" in message:
                located.append(cleaners.Located(str(message["located"]), bytes(payload)))
                continue
            given = cast(dict[str, Any], message["image"])
            view, parts, at = memoryview(payload), [], 0
            for length in given["lengths"]:
                parts.append(view[at : at + length])
                at += length
            images[given["sop_instance_uid"]] = cleaners.HeldImage(
                given["sop_instance_uid"],
                tuple(given["pending"]),
                parts[0],
                parts[1:],
                given["transfer_syntax_uid"],
                packed=given["packed"],
                report=given["report"],
            )
        for one in cleaner(list(images.values()), _seldom(report), options):
            if isinstance(one, cleaners.Located):
                wire.write(outgoing, {"located": one.frame_of_reference_uid}, [one.region])
            else:
                wire.write(outgoing, *cleaners.told(one, images[one.sop_instance_uid]))
        wire.write(outgoing, {"cleaned": len(images)})


def _seldom(report: Callable[[float, str], None]) -> Callable[[float, str], None]:
    """Let through at most five reports a second, and every new note."""
    import time

    last_at, last_note = 0.0, ""

    def told(fraction: float, note: str) -> None:
        nonlocal last_at, last_note
        now = time.monotonic()
        if now - last_at >= 0.2 or note != last_note:
            last_at, last_note = now, note
            report(fraction, note)

    return told


def _told(error: BaseException) -> dict[str, object]:
    """What may be said of an error: class and place, never its message, which may quote values."""
    import errno
    import sysconfig
    import traceback

    from pacs.processing.api import NotApplicable, Transient

    if isinstance(error, NotApplicable):
        return {"skip": str(error)[:500]}
    frames = traceback.extract_tb(error.__traceback__)
    # The deepest frame outside installed libraries is where a plug-in's author wants to look.
    libraries = ("site-packages", sysconfig.get_path("stdlib"), "<frozen")
    own = [one for one in frames if not any(part in one.filename for part in libraries)]
    last = (own or list(frames))[-1:]
    place = f"{Path(last[0].filename).name}:{last[0].lineno}" if last else ""
    told: dict[str, object] = {"error": type(error).__name__, "place": place}
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        told["error"] = "FileWriteForbidden"
    elif isinstance(error, Transient | OSError):
        told["transient"] = True
    return told


def _quoted(error: BaseException) -> dict[str, object]:
    """The whole of an error, for the author who tries a processor on images of their own."""
    import traceback

    return {"message": str(error)[:2000], "trace": "".join(traceback.format_exception(error))[-8000:]}
