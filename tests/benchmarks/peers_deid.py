"""Peers on the planted corpus: which planted strings survive each tool, run as its own documentation says, with its defaults.

Install the peers in an environment of their own and name their commands (versions are asked of that environment):

    python -m venv PEERS && PEERS/bin/pip install dicognito dicom-anonymizer
    PYTHONPATH=.:tests .venv/bin/python tests/benchmarks/peers_deid.py PEERS/bin

Prints a Markdown table: a row an object of `corpus.py`, a column a tool, a cell the needles that are left, "–" for none and
"refused" where a tool gave nothing back. All get the same Part 10 files, one run for each file.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import making
from benchmarks.corpus import NEEDLES, corpus, surviving
from pydicom.dataset import Dataset

from pacs.deid.profile import Deidentifier
from pacs.dicom import elements, part10
from pacs.model.errors import ArchiveError

Tool = Callable[[Dataset, Path], bytes | None]
TIMEOUT_S = 120


def ours(policy: str) -> Tool:
    """Return this archive's own de-identification under a policy, as a file."""
    deidentifier = Deidentifier(policy, b"a key for measuring, 32 bytes...")

    def run(ds: Dataset, folder: Path) -> bytes | None:
        try:
            result = deidentifier.deidentify(making.received(ds))
        except ArchiveError:
            return None
        meta = part10.file_meta(result.sop_class_uid, result.key.sop_instance_uid, result.transfer_syntax_uid)
        return meta + b"".join(elements.join(result.elements))

    return run


def command(*words: str) -> Tool:
    """Return a tool that is started with the input and the output in the places of {in} and {out} (a file or a folder)."""

    def run(ds: Dataset, folder: Path) -> bytes | None:
        source, target = folder / "in.dcm", folder / "out"
        source.write_bytes(making.part10(ds))
        target.mkdir()
        places = {"{in}": str(source), "{out}": str(target), "{outfile}": str(target / "out.dcm")}
        arguments = [places.get(word, word) for word in words]
        done = subprocess.run(arguments, capture_output=True, timeout=TIMEOUT_S, cwd=folder)
        written = sorted(path for path in target.rglob("*") if path.is_file())
        return written[0].read_bytes() if done.returncode == 0 and written else None

    return run


def peers(binaries: Path) -> dict[str, Tool]:
    """Return the peers whose commands are in this folder."""
    known = {
        # The command that dicognito 0.19.0 installs ends with a TypeError; its module is what works.
        "dicognito": command(str(binaries / "python"), "-m", "dicognito", "{in}", "-o", "{out}"),
        "dicom-anonymizer": command(str(binaries / "dicom-anonymizer"), "{in}", "{outfile}"),
    }
    return {name: tool for name, tool in known.items() if (binaries / name).exists()}


def version(binaries: Path, package: str) -> str:
    """Return the version of a package in the peers' environment."""
    script = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([str(binaries / "python"), "-c", script], capture_output=True, text=True).stdout.strip()


def table(tools: Mapping[str, Tool]) -> str:
    """Return the Markdown table of what survives each tool."""
    lines = ["| hidden in | " + " | ".join(tools) + " |", "|---" * (len(tools) + 1) + "|"]
    clean = dict.fromkeys(tools, 0)
    objects = corpus()
    for name, ds in objects.items():
        cells = []
        for tool, run in tools.items():
            with tempfile.TemporaryDirectory() as folder:
                data = run(ds, Path(folder))
            left = surviving(data) if data is not None else []
            clean[tool] += data is not None and not left
            cells.append("refused" if data is None else ", ".join(short(needle) for needle in left) or "–")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append(f"| **clean of {len(objects)}** | " + " | ".join(f"**{clean[tool]}**" for tool in tools) + " |")
    return "\n".join(lines)


def short(needle: str) -> str:
    """Return what a needle stands for."""
    words = ("surname", "given name", "ID", "ID", "physician", "birth date", "institution", "UID")
    return dict(zip(NEEDLES, words, strict=True))[needle]


def main(arguments: Sequence[str]) -> int:
    """Print the versions and the table."""
    if len(arguments) != 1:
        print(__doc__)
        return 2
    binaries = Path(arguments[0]).absolute()
    found = peers(binaries)
    print(", ".join(f"{name} {version(binaries, name)}" for name in found) or "no peers there")
    print()
    print(table({"mini-pacs, basic": ours("basic"), "mini-pacs, research": ours("research"), **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
