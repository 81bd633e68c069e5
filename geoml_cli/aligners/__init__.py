"""Transforms between a reference and a moving image."""
