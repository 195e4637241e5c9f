"""Benches of networks beside the default one, by small stand-ins for them."""
