"""Feature maps to outputs."""
