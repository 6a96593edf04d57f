"""Benchmarks: of the engine without HTTP (`python -m minisgl.bench offline`, `… latency`), of a server (`… serve`)."""
