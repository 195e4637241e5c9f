"""Benches for the developers of this package; they are in a checkout only, not in an installed package."""
