"""Tables of the standard as data (see README.md here for edition and source), and their typed loaders."""
