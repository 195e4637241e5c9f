"""Dask inside a SLURM job, and everything that talks to SLURM: queue, sites, job scripts.

Which campaigns are submitted is decided by `pipeline.runs.slurm`.
"""
