"""The groups of rows, one a file. A file that is put here and has a `GROUP` is measured with the others."""
