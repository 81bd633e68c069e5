"""Numbers about places: grids, windows, bounds, splits; no I/O, no torch."""
