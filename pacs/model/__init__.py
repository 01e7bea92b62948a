"""Nouns of the archive; no I/O."""
