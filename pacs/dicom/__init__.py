"""The encoded data set: walk and splice, values, Part 10 and DICOM JSON. Pure; knows `model` and `standard` only."""
