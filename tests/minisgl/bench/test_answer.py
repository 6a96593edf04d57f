"""A stream is read the same however it is cut, and only whole ones count."""

import pytest

from minisgl.bench.answer import Answer, refusal
from minisgl.bench.client import Failed
from support.broken_server import events

CHAT = events(
    b'{"choices":[{"delta":{"role":"assistant","content":""}}]}',
    b'{"choices":[{"delta":{"content":"a"}}]}',
    b'{"choices":[{"delta":{"reasoning_content":"hm"}}]}',
    b'{"choices":[{"delta":{},"finish_reason":"stop"}]}',
    b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}',
    b"[DONE]",
)


@pytest.mark.parametrize("size", [1, 2, 7, 50, 10_000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_stream_may_be_cut_anywhere(size: int, end: bytes) -> None:
    data = b": a comment\n\n" + CHAT.replace(b"\n", end)
    answer = Answer(0.0)
    for at in range(0, len(data), size):
        answer.feed(data[at : at + size])
    answer.end(200, b"")
    assert len(answer.times) == 2, "an opening and an ending bring no text"
    assert answer.times == sorted(answer.times)
    assert answer.num_tokens == 2
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 3


def test_an_endless_line_is_given_up() -> None:
    answer = Answer(0.0)
    answer.feed(b"x" * 2**20)
    with pytest.raises(Failed, match="endless line"):
        answer.feed(b"x")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"error":{"code":"overloaded","type":"t"}}', "overloaded"),
        (b'{"error":{"code":null,"type":"server_error","message":"m"}}', "server_error"),
        (b'{"error":"text"}', "text"),
        (b'{"detail":"x","message":"m"}', "m"),
        (b"[1]", ""),
        (b"\xff", ""),
        (b"", ""),
    ],
)
def test_a_refusal_is_named_by_its_code(body: bytes, code: str) -> None:
    assert refusal(body) == code
