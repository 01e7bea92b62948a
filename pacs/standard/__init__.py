"""Tables of the DICOM standard as data, with typed loaders; never edited by hand."""
