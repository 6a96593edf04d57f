"""Benchmarks of the engine itself, without HTTP: `python -m minisgl.bench offline` and `… latency`."""
