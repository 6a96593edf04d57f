"""The KV cache: the tensors that hold it, and the prefix caches that find reusable pages."""
