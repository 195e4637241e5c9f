"""Plan, run, publish, verify: what the command line calls."""
