"""The DIMSE door (PS3.7, PS3.8): bytes to our types, our errors to statuses."""
