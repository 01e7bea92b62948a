"""`follow-up`: breathing is taken away, growth stays, the same bytes come again."""

from pathlib import Path

import judges
import pytest

from pacs.processing import NotApplicable, Run, Series, Study, scoring
from pacs.processing.derive import derive, encode
from pacs.processing.headers import Provenance
from pacs.processing.validate import findings
from processors.follow_up import choose, follow_up
from processors.scores.follow_up import SPACING, pair, score


def test_growth_stays_and_breathing_goes() -> None:
    """The new nodule keeps its contrast, elsewhere less than 60 % of the difference is left, within a voxel of the truth."""
    scores = score().scores
    assert scores["rigid and deformable: mean difference in the new nodule (HU)"] == pytest.approx(890, abs=30)
    without = scores["without registration: mean difference elsewhere (HU)"]
    assert scores["rigid and deformable: mean difference elsewhere (HU)"] < 0.6 * without
    assert scores["left of it by deformable registration, mean (mm)"] < min(SPACING)


def test_differences_conform(tmp_path: Path) -> None:
    """The same bytes again, no error for dciodvfy, and values that say they are no Hounsfield units."""
    earlier, later, _ = pair()
    spec = scoring.spec_of(follow_up)
    parameters = spec.bind({"deformable": False})
    provenance = Provenance("d" * 64, spec.name, spec.version, parameters)
    known = {str(one.SOPInstanceUID) for one in [*earlier, *later]}

    def once() -> list[bytes]:
        made = list(derive(spec.call(Study([Series(later), Series(earlier)]), Run(), parameters), provenance))
        assert all(findings(one, encode(one.dataset), known, str(later[0].StudyInstanceUID)) == [] for one in made)
        paths = judges.written(tmp_path / "out", [made[20].dataset])
        assert [error for path in paths for error in judges.errors(path)] == []
        assert made[0].dataset.RescaleType == "US"
        return [encode(one.dataset) for one in made]

    assert once() == once()


def test_the_later_one_is_told_by_time_not_by_place() -> None:
    """Order of arrival does not matter; one volume alone is refused."""
    earlier, later, _ = pair()
    first, last = choose(Study([Series(later), Series(earlier)]))
    assert first.text("SeriesInstanceUID") == earlier[0].SeriesInstanceUID
    assert last.text("SeriesInstanceUID") == later[0].SeriesInstanceUID
    with pytest.raises(NotApplicable, match="two original CT volumes"):
        choose(Study([Series(later)]))
