"""Benches of mapping on this machine: engines, reading, whole runs, windows, int8, GPU."""
