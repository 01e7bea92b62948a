"""The web door: DICOMweb (PS3.18) and the pages."""
