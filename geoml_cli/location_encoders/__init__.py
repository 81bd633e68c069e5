"""Coordinates to vectors."""
