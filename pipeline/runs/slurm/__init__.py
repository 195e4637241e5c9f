"""Campaigns as SLURM jobs: submit them, and put a job back into the queue while it makes progress.

How to talk to SLURM is in `pipeline.cluster.slurm`.
"""
