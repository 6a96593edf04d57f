"""The curl lines of the READMEs, run as they are written against a real server; only its address is another one."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server import TINY, Server, running
from support.words import save_dummy

pytestmark = pytest.mark.cpu

ROOT = Path(__file__).resolve().parents[3]
ADDRESS = "localhost:1919"
FILES = ("README.md", "runtime/README.md", "runtime/HTTP.md")


def curl_lines() -> Iterator[tuple[str, str]]:
    """File and command of each curl in a fenced block; a command ends with a line without a backslash."""
    for file in FILES:
        for block in re.findall(r"^```\w*\n(.*?)^```$", (ROOT / file).read_text(), re.MULTILINE | re.DOTALL):
            joined = block.replace("\\\n", "\\\0")
            for line in joined.splitlines():
                if re.search(r"\bcurl\b", line):
                    yield file, line.replace("\\\0", "\\\n").removeprefix("$ ")


LINES = list(curl_lines())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = save_dummy(tmp_path_factory.mktemp("model"))
    (folder / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")  # an error is an exit code
    limits = ("--max-seq-len-override=256", "--served-model-name=smollm2")
    with running(folder, *TINY, *limits, module="minisgl") as server:
        yield server


def test_two_of_them_have_some_and_all_are_of_this_server() -> None:
    assert {file for file, _ in LINES} == {"README.md", "runtime/HTTP.md"}
    assert [line for _, line in LINES if ADDRESS not in line] == []


@pytest.mark.parametrize(("file", "line"), LINES, ids=lambda value: value[:70])
def test_a_line_works(server: Server, file: str, line: str) -> None:
    command = line.replace(ADDRESS, server.url.removeprefix("http://"))
    environment = os.environ | {"CURL_HOME": str(server.log_path.parent)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout
