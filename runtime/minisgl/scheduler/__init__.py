"""Which tokens run next, and who owns which page of the KV cache."""
