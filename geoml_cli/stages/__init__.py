"""Read, work, write: one file a verb; the Python API."""
