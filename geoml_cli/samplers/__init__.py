"""The layout of windows."""
