"""Units that processors share (UCUM, PS3.16 8.1), where the code dictionary has none."""

from pacs.processing.concepts import Code

HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
PERCENT = Code("%", "UCUM", "Percent")
NO_UNIT = Code("1", "UCUM", "no units")
GRAM = Code("g", "UCUM", "gram")
