"""`bench serve` as a command: against a real small server, and against servers that do everything wrong."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minisgl.bench.__main__ import main
from support.broken_server import OK, events, saying, whole
from support.server import TINY, Server, running
from support.words import save_dummy

PIECE = b'{"choices":[{"text":"a"}]}'
USAGE = b'{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}'
GOOD = OK + b"\r\n" + events(PIECE, PIECE, PIECE, USAGE, b"[DONE]")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(save_dummy(tmp_path_factory.mktemp("model")), *TINY, scheduler="faulty") as server:
        yield server


@pytest.mark.cpu
@pytest.mark.parametrize("how", [["--concurrency=3"], ["--rate=40"]])
@pytest.mark.parametrize("api", ["completions", "chat"])
def test_every_token_of_a_real_server_is_counted(
    server: Server, how: list[str], api: str, tmp_path: Path, capsys: Any
) -> None:
    target = tmp_path / "result.json"
    lens = ["--input-len=5-20", "--output-len=4-9", "--vocab-size=250", "--num-prompts=12"]
    assert main(["serve", f"--url={server.url}/v1", f"--api={api}", f"--json={target}", *lens, *how]) == 0
    said = capsys.readouterr().out
    result = json.loads(target.read_text())
    totals = result["totals"]
    assert (totals["requests"], totals["failed"], totals["answers_without_usage"]) == (12, 0, 0)
    assert 12 * 4 <= totals["output_tokens"] <= 12 * 9
    if api == "completions":
        assert 12 * 5 <= totals["input_tokens"] <= 12 * 20
    assert f"{totals['output_tokens']:,} out" in said
    assert result["rows"][0]["ms"] == "first token"
    for row in result["rows"]:
        assert 0 <= row["p50"] <= row["p90"] <= row["p99"]
    assert result["rows"][0]["p50"] < result["rows"][3]["p50"], "the first token is before the end"
    assert result["model"] == "tiny"
    assert result["machine"]["cpu"]
    assert result["command"].startswith("python -m minisgl.bench serve --url=")
    assert "failed" not in said


@pytest.mark.cpu
def test_the_servers_own_count_is_the_clients(server: Server, tmp_path: Path) -> None:
    def made() -> float:
        return server.metric("minisgl_generation_tokens_total")

    before, target = made(), tmp_path / "result.json"
    words = ["serve", f"--url={server.url}", "--num-prompts=9", "--output-len=3-30", "--vocab-size=250", "--warm-up=0"]
    assert main([*words, f"--json={target}"]) == 0
    assert json.loads(target.read_text())["totals"]["output_tokens"] == made() - before


FAILURES = {
    "HTTP 503 overloaded": whole("503 Service Unavailable", b'{"error":{"code":"overloaded","message":"x"}}'),
    "HTTP 500": whole("500 Oh", b"<html>"),
    "connection closed without an answer": b"",
    "connection lost": OK + b"Content-Length: 999\r\n\r\n" + events(PIECE),
    "the stream ended without [DONE]": OK + b"\r\n" + events(PIECE),
    "error in the stream: server_failed": OK + b"\r\n" + events(PIECE, b'{"error":{"code":"server_failed"}}'),
    "an event that is no chunk": OK + b"\r\n" + events(PIECE, b"{]"),
    "no text in the answer": OK + b"\r\n" + events(USAGE, b"[DONE]"),
    "not HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "not whole within 0.5 s": None,
}
SMALL = ["--num-prompts=2", "--warm-up=0", "--timeout=0.5"]


@pytest.mark.parametrize("kind", FAILURES)
def test_each_failure_is_counted_by_its_kind(kind: str, capsys: Any) -> None:
    with saying(FAILURES[kind]) as url:
        assert main(["serve", f"--url={url}", *SMALL]) == 1, "nothing was measured"
    assert f"failed: 2 x {kind}\n" in capsys.readouterr().out


def test_failures_beside_answers_leave_the_answers(tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "result.json"
    answers = [GOOD, FAILURES["HTTP 500"], GOOD, FAILURES["connection lost"]]
    with saying(*answers) as url:
        words = ["serve", f"--url={url}", "--num-prompts=8", "--warm-up=0", "--concurrency=1", f"--json={target}"]
        assert main(words) == 0
    totals = json.loads(target.read_text())["totals"]
    assert (totals["requests"], totals["failed"]) == (4, 4)
    assert totals["errors"] == {"HTTP 500": 2, "connection lost": 2}
    assert (totals["output_tokens"], totals["input_tokens"]) == (4 * 7, 4 * 5)
    assert "4 requests in" in capsys.readouterr().out


def test_a_server_without_usage_is_counted_by_its_events_and_that_is_said(capsys: Any) -> None:
    with saying(OK + b"\r\n" + events(PIECE, PIECE, b"[DONE]")) as url:
        assert main(["serve", f"--url={url}", *SMALL]) == 0
    said = capsys.readouterr().out
    assert "0 tokens in, 4 out" in said
    assert "2 answers came without usage: their events are counted as tokens" in said


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--url=http://127.0.0.1:9"], 1, "--url http://127.0.0.1:9: no connection: refused; is the server up?"),
        (["--url=ftp://x"], 2, "--url 'ftp://x' is no http:// or https:// address"),
        (["--url=http://x:port"], 2, "--url "),
        (["--rate=2", "--concurrency=3"], 2, "give one"),
        (["--rate=0"], 2, "'0' is no number above 0"),
        (["--input-len=9-3"], 2, "'9-3' begins above its end"),
        (["--output-len=x"], 2, "'x' is no whole number"),
        (["--api=grpc"], 2, "'grpc' is none of completions, chat"),
        (["--ulr=x"], 2, "did you mean --url?"),
    ],
)
def test_a_wrong_call_is_one_line(words: list[str], code: int, sentence: str, capsys: Any) -> None:
    assert main(["serve", *words]) == code
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("models", [b"<html>", b"{}", b'{"data":[]}', b"\xff"])
def test_what_names_no_model_is_told_before_measuring(models: bytes, capsys: Any) -> None:
    with saying(GOOD, models=models) as url:
        assert main(["serve", f"--url={url}", *SMALL]) == 1
        assert "names no model (HTTP 200); give --model" in capsys.readouterr().err
        assert main(["serve", f"--url={url}", "--model=m", *SMALL]) == 0
