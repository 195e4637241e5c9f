"""Simulations of samples: how good areas and intervals from them are."""
