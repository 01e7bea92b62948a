"""Processors that ship with mini-pacs: one file each, found by the entry-point group `mini_pacs.processors`."""
