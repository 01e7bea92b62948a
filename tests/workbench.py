"""Runs a processor as the archive does, and has everything that it makes judged."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import judges
import making
from pydicom.dataset import Dataset

from pacs.deid.check import check
from pacs.deid.profile import Deidentifier
from pacs.processing import Run, Series, Study
from pacs.processing.derive import Provenance, derive, encode
from pacs.processing.registry import discover
from pacs.processing.scoring import spec_of
from pacs.processing.validate import findings
from pacs.processing.words import words


def results(function: Any, datasets: Sequence[Dataset], **given: object) -> list[Dataset]:
    """Return the objects that a series processor makes; neither the own judge nor that of identity finds anything in them."""
    spec = spec_of(function)
    parameters = spec.bind(given)
    provenance = Provenance("d" * 64, spec.name, spec.version, parameters)
    subject: Series | Study = Series(datasets)
    known, study = {str(one.SOPInstanceUID) for one in datasets}, str(datasets[0].StudyInstanceUID)
    found = []
    for made in derive(spec.call(subject, Run(), parameters), provenance):
        assert findings(made, encode(made.dataset), known, study) == []
        known.add(str(made.dataset.SOPInstanceUID))
        found.append(made.dataset)
    one_of_each = {str(one.SeriesInstanceUID): one for one in found}
    before = doubts(datasets[0], function)
    assert [doubt for one in one_of_each.values() for doubt in doubts(one, function) if doubt not in before] == []
    return found


def doubts(dataset: Dataset, maker: Any = None) -> list[tuple[str, str]]:
    """Return what `pacs deid check` finds in the words of an object: kind and place. `maker` may be a home's plug-in."""
    is_plug_in = maker is not None and spec_of(maker).module.startswith("mini_pacs_plugin_")
    judgement = check(_judge(maker if is_plug_in else None), making.part10(dataset))
    return [(one.kind, one.where) for one in judgement.findings if one.kind in ("text", "element", "private", "object")]


@cache
def _judge(plug_in: Any = None) -> Deidentifier:
    specs = [*discover().values(), *([spec_of(plug_in)] if plug_in is not None else [])]
    return Deidentifier("research", b"a key for judging, 32 bytes.....", words=words(specs))


def assert_conforms(
    function: Any, datasets: Sequence[Dataset], folder: Path, *, most: int = 6, **given: object
) -> list[Dataset]:
    """Two runs give the same bytes, and dciodvfy finds no error that the source has not; `most` objects are shown to it."""
    once, again = results(function, datasets, **given), results(function, datasets, **given)
    assert [encode(one) for one in once] == [encode(one) for one in again]
    before = set(judges.errors(judges.written(folder / "in", list(datasets[:1]))[0]))
    step = max(1, len(once) // most)
    chosen = [*once[: len(once) - 1 : step], once[-1]]
    paths = judges.written(folder / "out", chosen)
    assert [error for path in paths for error in judges.errors(path) if error not in before] == []
    return once
