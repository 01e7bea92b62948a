"""Sealed records, keys and segments (docs/format.md)."""
