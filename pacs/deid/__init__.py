"""De-identification, PS3.15 Annex E; in memory only."""
