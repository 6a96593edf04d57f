"""Triton kernels for the GPU, each beside its twin in plain torch. No module here is imported on a CPU."""
