"""The page for people: one file that needs nothing else, and may do nothing else."""

import base64
import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from support.front import FrontEnd


@pytest.fixture
def answer(tmp_path: Path) -> httpx.Response:
    return FrontEnd(tmp_path).ask("GET", "/")


def content(answer: httpx.Response, tag: str) -> str:
    (found,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
    return str(found)


def test_it_is_html_that_may_run_its_own_script_and_ask_its_own_server_only(answer: httpx.Response) -> None:
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = dict(part.partition(" ")[::2] for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    for tag in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(content(answer, tag).encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"


def test_it_refers_to_nothing_outside(answer: httpx.Response) -> None:
    assert re.findall(r"(?:https?:)?//[a-z]", re.sub(r"(?m)\s// .*$", "", answer.text)) == []
    assert re.findall(r"(?:src|href)=\S+", answer.text) == ['href="data:,">']
    assert not re.search(r"@import|url\(", content(answer, "style"))


def test_its_policy_would_forbid_attributes_that_hold_code_or_style(answer: httpx.Response) -> None:
    assert not re.search(r"<[^>]*\s(?:on\w+|style)=", answer.text.partition("<script>")[0])


def test_its_script_makes_no_html_of_text(answer: httpx.Response) -> None:
    script = content(answer, "script")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(", script)
    assert "localStorage" not in script


@pytest.mark.skipif(shutil.which("node") is None, reason="node, which would read the script, is not installed")
def test_its_script_can_be_read(answer: httpx.Response, tmp_path: Path) -> None:
    (tmp_path / "page.js").write_text(content(answer, "script"))
    ran = subprocess.run(["node", "--check", "page.js"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
