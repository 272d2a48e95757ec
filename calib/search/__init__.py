"""Layer choice within an accuracy budget: sensitivity and search."""
