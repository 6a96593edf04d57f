"""The forward step: model, KV cache memory and sampling behind one call."""
