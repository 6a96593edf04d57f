"""Kernels of our own: Triton for the GPU, each beside its twin in plain torch, and C for a CPU (`native`)."""
