"""These tests need an NVIDIA GPU, and are no part of `make test`: see README.md."""

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("no NVIDIA GPU is visible", allow_module_level=True)
