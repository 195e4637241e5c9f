"""Is this machine ready: packages, GPUs, weights, file systems. Behind `landcover doctor`."""
