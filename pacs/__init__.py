"""mini-pacs: a small, secure DICOM archive that de-identifies, compresses, encrypts, and processes on arrival."""

__version__ = "0.1.0"
