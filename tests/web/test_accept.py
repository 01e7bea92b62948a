"""Accept headers of real clients are read as they are meant."""

import pytest

from pacs.web.accept import EXPLICIT_LE, NotAcceptable, choose, media_type_of, parse_accept, parse_media_type, transfer_syntaxes

HTJ2K = "1.2.840.10008.1.2.4.201"


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ('multipart/related; type="application/dicom"', [EXPLICIT_LE]),
        ("multipart/related; type=application/dicom; transfer-syntax=*", ["*"]),
        ("multipart/related; type=application/dicom; transfer-syntax=%2A", ["*"]),
        (f'multipart/related; type="application/dicom"; transfer-syntax={HTJ2K}', [HTJ2K]),
        (f"application/dicom;transfer-syntax={HTJ2K};q=0.2, application/dicom;q=0.9", [EXPLICIT_LE, HTJ2K]),
        ('multipart/related; type="*/*"', [EXPLICIT_LE]),
        ("*/*", [EXPLICIT_LE]),
        ("", [EXPLICIT_LE]),
    ],
)
def test_w6_transfer_syntaxes_are_read_from_any_clients_header(header: str, wanted: list[str]) -> None:
    """Quoted or not, percent-encoded star, q-values, nothing at all."""
    assert transfer_syntaxes(parse_accept(header), "application/dicom") == wanted


def test_the_query_parameter_comes_before_the_header() -> None:
    """`?accept=` overrides the header (PS3.18 8.3.3.1)."""
    assert [one.name for one in parse_accept("image/avif,*/*;q=0.8", ["image/jpeg"])] == ["image/jpeg"]


def test_w6_what_is_not_covered_is_not_acceptable() -> None:
    """A type that no range covers raises, and so does q=0."""
    with pytest.raises(NotAcceptable):
        transfer_syntaxes(parse_accept("text/html"), "application/dicom")
    with pytest.raises(NotAcceptable):
        transfer_syntaxes(parse_accept("application/dicom;q=0"), "application/dicom")


def test_choose_prefers_the_callers_order() -> None:
    """The first wanted syntax that can be reached wins; the stored one can always be reached."""
    assert choose(HTJ2K, [EXPLICIT_LE, HTJ2K], [EXPLICIT_LE]) == EXPLICIT_LE
    assert choose(HTJ2K, ["1.2.3", "*"], [EXPLICIT_LE]) == HTJ2K
    assert choose(HTJ2K, ["1.2.3"], [EXPLICIT_LE]) is None


def test_a_separator_inside_quotation_marks_is_text() -> None:
    """A boundary may hold a semicolon."""
    assert parse_media_type('multipart/related; boundary="a;b,c"; type=x') == (
        "multipart/related",
        {"boundary": "a;b,c", "type": "x"},
    )


def test_media_types_follow_the_table() -> None:
    """PS3.18 Table 8.7.3-5."""
    assert media_type_of(HTJ2K) == "image/jphc"
    assert media_type_of("1.2.840.10008.1.2.4.80") == "image/jls"
    assert media_type_of("1.2.840.10008.1.2.4.90") == "image/jp2"
    assert media_type_of("1.2.840.10008.1.2.5") == "image/dicom-rle"
    assert media_type_of(EXPLICIT_LE) == "application/octet-stream"
