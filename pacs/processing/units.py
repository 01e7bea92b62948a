"""Units that processors share (UCUM, PS3.16 8.1), where the code dictionary has none, and what many of them measure."""

from pacs.processing.concepts import Code, codes
from pacs.processing.outputs import Value

HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
PERCENT = Code("%", "UCUM", "Percent")
NO_UNIT = Code("1", "UCUM", "no units")
GRAM = Code("g", "UCUM", "gram")


def volume(ml: float, digits: int = 1) -> Value:
    """Return a volume (mL) as a report has it."""
    return Value(codes.SCT.Volume, round(ml, digits), codes.UCUM.CubicCentimeter)


def attenuation(hounsfield: float, digits: int = 1) -> Value:
    """Return a mean attenuation (HU) as a report has it."""
    return Value(codes.DCM.AttenuationCoefficient, round(hounsfield, digits), HOUNSFIELD, codes.SCT.Mean)
