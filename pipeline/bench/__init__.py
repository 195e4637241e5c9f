"""Measurements: each writes figures, raw numbers and a picture. Speeds are ratios taken side by side in one run."""
