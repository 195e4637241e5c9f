"""Change between two editions of the national product: pixel by pixel, in tables, and in a sample of places."""
