"""The encoded data set: walk, splice, values, Part 10, DICOM JSON. Pure functions."""
