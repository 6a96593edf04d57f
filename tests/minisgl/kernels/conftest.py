"""The kernels in Triton's interpreter: in a process of its own, since it is chosen when Triton is imported."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")


@pytest.fixture(scope="session")
def interpreted() -> dict[str, str]:
    """What went wrong, by the name of the check in `support.kernels`."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", "-m", "support.kernels"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr
    wrong: dict[str, str] = json.loads(run.stdout)
    return wrong
