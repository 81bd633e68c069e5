"""Blocks that several parts share."""
