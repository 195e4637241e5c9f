"""A procedural piece of country with known truth, delivered as BD ORTHO and elevation are."""
