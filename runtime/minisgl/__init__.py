"""MiniSGL's runtime: serves one large language model over an OpenAI-compatible HTTP endpoint."""

__version__ = "0.1.0"
