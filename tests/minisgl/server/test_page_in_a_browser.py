"""A person's visit to `/` in a real browser: the model behind it says again what it was told.

`MINISGL_SCREENSHOTS=FOLDER` keeps what was on the screen, for a person to look at.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support import browser as chromium
from support.browser import Browser
from support.server import Server, Stream, is_alive, running
from support.words import save_words

PROGRAM = chromium.find()
pytestmark = [
    pytest.mark.cpu,
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium on PATH (Debian: chromium)"),
]
EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ("--max-running-requests=1", "--max-queued-requests=1", "--reasoning-parser=qwen3")
    with running(save_words(tmp_path_factory.mktemp("model")), *flags, fake="step=0.01") as server:
        yield server


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    with Browser(PROGRAM, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(opened: Browser, server: Server) -> Browser:
    return visit(opened, server)


def visit(browser: Browser, server: Server, **window: Any) -> Browser:
    """A new visit: nothing of an older one stays."""
    browser.open(f"{server.url}/", **window)
    browser.eval("sessionStorage.clear()")
    browser.said.clear()
    browser.open(f"{server.url}/?", **window)
    browser.eval("window.asked = []; window.plain = fetch; void 0")
    browser.eval("window.fetch = (path, o) => { if (o.body) asked.push(JSON.parse(o.body)); return plain(path, o) }; 0")
    return browser


def say(page: Browser, text: str, **settings: object) -> None:
    """Fill in settings, write and send."""
    for name, value in settings.items():
        page.eval(f"at({json.dumps(name)}).value = {json.dumps(str(value))}")
    page.eval("at('text').focus()")
    page.type(text)
    page.press("Enter")


def answers(page: Browser) -> list[str]:
    found: list[str] = page.eval("[...document.querySelectorAll('.assistant .text')].map((e) => e.textContent)")
    return found


def wait_answered(page: Browser) -> None:
    page.wait("at('below').textContent === 'Answered.'")


def keep(page: Browser, name: str) -> None:
    if folder := os.environ.get("MINISGL_SCREENSHOTS"):
        page.screenshot(Path(folder) / f"{name}.png")


def test_an_answer_is_streamed_with_its_figures(page: Browser) -> None:
    page.wait("at('model').textContent === 'tiny'")
    assert page.eval("at('context').textContent") == "4,096 tokens of context"
    assert page.eval("document.activeElement.id") == "text"
    say(page, "hello", max_tokens=40, system="be brief", temperature=0.5, top_p=0.9, seed=7)
    wait_answered(page)
    assert page.eval("asked") == [
        {
            "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0.5,
            "top_p": 0.9,
            "max_tokens": 40,
            "seed": 7,
        }
    ]
    assert answers(page) == ["system: be briefuser: helloassistant: "]
    assert page.eval("document.querySelector('.thought').hidden")
    figures = page.eval("document.querySelector('.figures').textContent")
    assert "first token after" in figures
    assert "tokens/s · 40 + 40 tokens · cut at the limit of tokens" in figures
    keep(page, "desktop")
    assert page.said == []


def test_a_conversation_goes_on_and_its_last_answer_can_be_made_again(page: Browser) -> None:
    say(page, "one", max_tokens=9)
    wait_answered(page)
    say(page, "two")
    page.wait("document.querySelectorAll('.assistant').length === 2 && !running")
    roles = page.eval("asked[1].messages.map((m) => m.role)")
    assert roles == ["user", "assistant", "user"]
    page.eval("document.querySelector('.again').click()")
    page.wait("asked.length === 3 && !running")
    assert page.eval("JSON.stringify(asked[2]) === JSON.stringify(asked[1])")
    assert len(answers(page)) == 2
    page.eval("at('clear').click()")
    assert answers(page) == []
    say(page, "three")
    wait_answered(page)
    assert page.eval("asked[3].messages") == [{"role": "user", "content": "three"}]


def test_what_a_model_writes_stays_text(page: Browser) -> None:
    say(page, EVIL, max_tokens=150)
    wait_answered(page)
    assert EVIL in answers(page)[0]
    assert page.eval("document.querySelectorAll('#log img, #log script').length") == 0
    assert page.eval("document.title") == "tiny \u2013 MiniSGL"
    page.eval("try { at('log').innerHTML = '<b>x</b>' } catch { window.refused = true }")
    assert page.eval("refused"), "the policy lets a text become HTML"


def test_reasoning_stands_before_the_answer_and_is_not_sent_again(page: Browser) -> None:
    page.eval("at('text').value = '\\x02<think>Why <b>not</b>?</think>So.\\x03'; 0")
    say(page, "", max_tokens=100)
    wait_answered(page)
    assert page.eval("document.querySelector('.thought').textContent") == "Why <b>not</b>?"
    assert answers(page) == ["So."]
    assert "tokens/s" in page.eval("document.querySelector('.figures').textContent")
    keep(page, "reasoning")
    say(page, "more", max_tokens=9)
    page.wait("asked.length === 2 && !running")
    assert [message["content"] for message in page.eval("asked[1].messages")][1:] == ["So.", "more"]


def test_keys_write_a_line_send_and_stop(page: Browser, server: Server) -> None:
    say(page, "", max_tokens="")  # an empty message is none
    assert page.eval("turns.length") == 0
    page.type("first")
    page.press("Enter", shift=True)
    page.type("second")
    page.press("Enter")
    page.wait("document.querySelector('.assistant .text')?.textContent.length > 3")
    assert page.eval("asked[0].messages[0].content") == "first\nsecond"
    assert page.eval("at('log').getAttribute('aria-busy')") == "true"
    page.press("Escape")
    page.wait("at('below').textContent === 'Stopped.'")
    assert page.eval("at('log').getAttribute('aria-busy')") == "false"
    assert "stopped" in page.eval("document.querySelector('.figures').textContent")
    server.wait_for(lambda: server.metric("minisgl_requests_running") == 0, 5)
    assert page.eval("document.activeElement.id") == "text"


def test_the_tab_key_reaches_everything_in_reading_order(page: Browser) -> None:
    page.eval("at('clear').focus()")
    reached = ["clear"]
    for _ in range(10):
        page.press("Tab")
        reached.append(page.eval("document.activeElement.id || document.activeElement.tagName"))
    fields = ["system", "temperature", "top_p", "max_tokens", "seed", "key"]
    assert reached == ["clear", "SUMMARY", *fields, "log", "text", "send"]


def test_a_wrong_setting_is_shown_and_not_sent(page: Browser) -> None:
    say(page, "hello", temperature=3)
    assert page.eval("[turns.length, document.activeElement.id]") == [0, "temperature"]


def test_a_full_server_says_when_to_try_again(page: Browser, server: Server) -> None:
    with ExitStack() as held:
        runs = Stream(server)
        held.callback(Stream(server, wait_lines=0).leave)
        held.callback(runs.leave)  # first, or the other would wait for its whole answer
        server.wait_for(lambda: server.metric("minisgl_requests_waiting") == 1, 5)
        say(page, "hello", max_tokens=9)
        page.wait("!at('error').hidden")
        assert "2 requests are open or wait, and 2 is the limit" in page.eval("at('why').textContent")
        assert "(503)" in page.eval("at('why').textContent")
        assert page.eval("at('again').textContent") == "Try again (wait 1 s)"
        keep(page, "full")
        page.wait("at('again').textContent === 'Try again'")
    server.wait_for(lambda: server.metric("minisgl_requests_running") == 0, 5)
    page.eval("at('again').click()")
    wait_answered(page)
    assert page.eval("at('error').hidden && turns.length === 2")


def test_a_refused_request_is_told_in_the_servers_words(page: Browser) -> None:
    say(page, "hello", max_tokens=5000)
    page.wait("!at('error').hidden")
    assert "maximum context length is 4096 tokens" in page.eval("at('why').textContent")


@pytest.mark.parametrize(("width", "dark"), [(360, False), (360, True), (1280, True)])
def test_it_fits_the_window_and_the_scheme(opened: Browser, server: Server, width: int, dark: bool) -> None:
    page = visit(opened, server, width=width, height=640 if width < 500 else 800, dark=dark)
    page.eval("at('settings').open = true")
    say(page, f"{'long' * 40} and {EVIL}", max_tokens=90)
    wait_answered(page)
    assert page.eval("document.documentElement.scrollWidth") <= width
    assert page.eval(
        "[...document.querySelectorAll('button, textarea')].every((e) => e.hidden || "
        "e.getBoundingClientRect().right <= innerWidth)"
    )
    lightness = page.eval("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
    assert (lightness < 60) is dark
    assert page.eval("at('settings').open") is (width > 500)
    keep(page, f"{'dark' if dark else 'light'}-{width}")


def test_a_key_is_asked_for_and_kept_in_the_tab(opened: Browser, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("sk-right")
    with running(save_words(tmp_path), f"--api-key-file={tmp_path / 'keys'}", fake="step=0.02") as server:
        page = visit(opened, server, width=360, height=640)
        page.wait("!at('error').hidden")
        assert "(401)" in page.eval("at('why').textContent")
        assert page.eval("document.activeElement.id") == "key"
        page.type("sk-right")
        keep(page, "key")
        page.press("Tab")
        page.wait("at('error').hidden && at('model').textContent === 'tiny'")
        assert page.eval("Object.entries(sessionStorage)") == [["minisgl.key", "sk-right"]]
        assert page.eval("localStorage.length") == 0
        say(page, "hello")
        page.wait("document.querySelector('.assistant .text')?.textContent.length > 3")
        server.process.kill()  # the server is gone in the middle of an answer
        page.wait("!at('error').hidden")
        assert "lost" in page.eval("at('why').textContent")
        assert "incomplete" in page.eval("document.querySelector('.figures').textContent")
        assert answers(page)[0].startswith("use")
        keep(page, "lost")
        page.eval("at('again').click()")
        page.wait("at('why').textContent.includes('It may have stopped')")
        assert not is_alive(server.process.pid) or server.process.wait(5) is not None
