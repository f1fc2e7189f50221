"""Groups of rows, one per file. Each file here with a `GROUP` is measured."""
