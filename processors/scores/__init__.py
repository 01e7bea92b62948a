"""Measures of the processors on phantoms of known truth and on labelled images; `pacs score` runs them."""
