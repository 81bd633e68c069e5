"""Statistics that add up, and the numbers made of them."""
