"""Benches: each measures this machine and writes figures, raw numbers and a chart; speeds are ratios within one run."""
