"""Devices that always write text at the same places of their images: rectangles to blank, whatever reads there.

The table is the site's own, `[[deid.devices]]` of `pacs.toml`: in which corner the captures of a scanner hold the name depends
on its configuration, so none can be shipped that is true everywhere; ultrasound tells its regions in the header. Conditions
may only name attributes that no policy takes away, because they are asked twice: on arrival, where a match makes an image one
at risk, and where pixels are cleaned.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pacs.dicom import conditions
from pacs.model.errors import ConfigurationError

LASTING = (
    "Manufacturer",
    "ManufacturerModelName",
    "SoftwareVersions",
    "Modality",
    "SOPClassUID",
    "ImageType",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
)
"""What conditions may name."""
_LARGEST = 65535

Rectangle = tuple[int, int, int, int]
"""x and y of its first column and row, from 0; width and height in pixels."""


@dataclass(frozen=True, slots=True)
class Device:
    """Conditions on the header, and what is blanked where all hold."""

    where: Mapping[str, Any]
    rectangles: tuple[Rectangle, ...]


def devices(tables: Iterable[Mapping[str, Any]]) -> tuple[Device, ...]:
    """Return the devices of `[[deid.devices]]`: tables of `where` and `rectangles`, a list of [x, y, width, height].

    Raises
    ------
    ConfigurationError
        An entry that is none; the message names it and says why.
    """
    found = []
    for number, table in enumerate(tables, 1):
        try:
            found.append(_device(table))
        except ValueError as error:
            raise ConfigurationError(f"deid.devices, entry {number}: {error}") from error
    return tuple(found)


def rectangles(table: Sequence[Device], attributes: Mapping[str, str]) -> tuple[Rectangle, ...]:
    """Return what is to be blanked in an image with these attributes (keyword -> value), of every device that it may be of."""
    return tuple(one for device in table if conditions.matches(device.where, attributes) for one in device.rectangles)


def _device(table: Mapping[str, Any]) -> Device:
    unknown = table.keys() - {"where", "rectangles"}
    if unknown:
        raise ValueError(f"unknown key {sorted(unknown)[0]}; a device has where and rectangles")
    where, given = table.get("where"), table.get("rectangles")
    if not isinstance(where, Mapping) or not where:
        raise ValueError("where must be a table of attributes")
    for keyword, condition in where.items():
        if keyword not in LASTING:
            raise ValueError(f"where may name {', '.join(LASTING)}; {keyword} may be gone when pixels are cleaned")
        conditions.check(keyword, condition)
    if not isinstance(given, Sequence) or not given or not all(_is_rectangle(one) for one in given):
        raise ValueError("rectangles must be a list of [x, y, width, height] in pixels, such as [[0, 0, 640, 48]]")
    return Device(dict(where), tuple((one[0], one[1], one[2], one[3]) for one in given))


def _is_rectangle(one: Any) -> bool:
    if not isinstance(one, Sequence) or len(one) != 4 or not all(type(value) is int for value in one):
        return False
    x, y, width, height = (int(value) for value in one)
    return min(x, y) >= 0 and min(width, height) > 0 and max(x, y, width, height) <= _LARGEST
