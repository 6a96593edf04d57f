"""Model architectures: their configuration, their weights on disk, their forward pass."""
