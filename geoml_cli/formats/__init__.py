"""One file per on-disk format: read and write, atomically."""
