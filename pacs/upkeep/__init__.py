"""Looking after an archive: verify, compact, forget, rotate keys, back up and restore, rebuild the index."""
