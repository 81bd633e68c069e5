"""Tables, not code."""
