"""The image holds all that the operator imports, and nothing of the runtime beyond it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_files_that_the_image_copies_are_enough_to_start(tmp_path: Path) -> None:
    dockerfile = (ROOT / "operator" / "Dockerfile").read_text()
    (tmp_path / "minisgl").mkdir()
    for name in re.findall(r"runtime/minisgl/(\w+\.py)", dockerfile.replace("/src/runtime/minisgl/", "")):
        shutil.copy(ROOT / "runtime" / "minisgl" / name, tmp_path / "minisgl")
    for folder in re.findall(r"COPY runtime/minisgl/(\w+) /app", dockerfile):
        shutil.copytree(ROOT / "runtime" / "minisgl" / folder, tmp_path / "minisgl" / folder)
    shutil.copytree(ROOT / "operator" / "minisgl_operator", tmp_path / "minisgl_operator")
    script = "import minisgl, minisgl_operator.__main__, sys; print(minisgl.__file__, 'torch' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [str(tmp_path / "minisgl" / "__init__.py"), "False"]
