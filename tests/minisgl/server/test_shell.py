"""The chat shell as a person meets it: through a pipe, and in a real (pseudo) terminal. The scheduler only echoes."""

import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.server import TESTS, descendants, listeners, wait_gone
from support.waiting import readable
from support.words import save_words

pytestmark = pytest.mark.cpu

ENVIRONMENT = {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1", "PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm"}
PROMPT = r"\x1b\[0m>"
TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_words(tmp_path_factory.mktemp("words"))


def command(model: Path) -> list[str]:
    return [sys.executable, "-m", "support.serve", "--model-path", str(model), "--shell"]


def talk(lines: str, model: Path, *, fake: str = "") -> subprocess.CompletedProcess[str]:
    """Pipe lines into a shell and wait for its end."""
    return subprocess.run(
        command(model),
        input=lines,
        capture_output=True,
        text=True,
        timeout=90,
        env=os.environ | ENVIRONMENT | {"MINISGL_FAKE": fake},
    )


class Screen:
    """A shell in a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int) -> None:
        self.process, self._fd = process, fd
        self.shown = ""

    def wait_for(self, pattern: str, seconds: float = 30) -> re.Match[str]:
        """Read until the pattern is on the screen, and forget what came before its end."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.shown)):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.shown!r}"
            if readable(self._fd, 0.1):
                try:
                    self.shown += os.read(self._fd, 65536).decode(errors="replace")
                except OSError:  # the last process that had the terminal open is gone
                    assert re.search(pattern, self.shown), f"ended without {pattern!r}: {self.shown!r}"
        self.shown = self.shown[found.end() :]
        return found

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def has_echo(self) -> bool:
        """Whether the terminal is as a shell such as bash left it."""
        return bool(termios.tcgetattr(self._fd)[3] & termios.ECHO)


@contextmanager
def terminal(model: Path, fake: str = "") -> Iterator[Screen]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL, *command(model)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=os.environ | ENVIRONMENT | {"MINISGL_FAKE": fake},
    )
    try:
        yield Screen(process, ours)
    finally:
        process.kill()
        process.wait(10)
        os.close(ours)
        os.close(theirs)


def test_lines_from_a_pipe_are_answered_and_the_end_is_clean(words: Path) -> None:
    hello = "Hello" * 340  # the longer the question, the shorter the echo's second answer
    done = talk(f"{hello}\n\n/nonsense\n/help\nB\n/exit\nnever read\n", words, fake="step=0")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    # The echo begins with the rendered chat; the special token between the turns is not text.
    assert first.startswith(f"user: {hello}assistant: user: Hello")
    assert second.startswith("user: Hello")
    figures = re.findall(r"^(\d+) \+ (\d+) tokens, [\d.]+ tokens/s, first token after \d", done.stderr, re.MULTILINE)
    assert figures[0] == ("1718", "2048")
    # The first turn and its answer come again; each turn ends with one special token.
    assert int(figures[1][0]) == 1718 + len(first) + 1 + len("user: B") + 1 + len("assistant: ")
    assert "/nonsense is no command" in done.stderr
    assert "/reset   forget" in done.stderr
    assert "never read" not in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert "INFO" not in done.stderr


def test_a_conversation_is_shortened_when_it_is_long_and_ends_when_it_is_reset(words: Path) -> None:
    lines = ["A" * 3800, "B" * 3700, "x" * 5000, "/reset", "C" * 3900]
    done = talk("\n".join(lines), words, fake="step=0")
    assert done.returncode == 0, done.stderr
    assert "the context is full: the oldest 1 of our turns are forgotten" in done.stderr
    assert "this message has 50" in done.stderr
    answers = done.stdout.splitlines()
    assert [answer[:9] for answer in answers] == ["user: AAA", "user: BBB", "user: CCC"]
    assert re.findall(r"^(\d+) \+ (\d+) tokens", done.stderr, re.MULTILINE) == [
        ("3818", "278"),
        ("3718", "378"),
        ("3918", "178"),
    ]


def test_a_terminal_has_a_prompt_ctrl_c_stops_an_answer_and_ctrl_d_ends(words: Path) -> None:
    with terminal(words, fake="step=0.01") as screen:
        screen.wait_for("tokens of context")
        screen.wait_for(PROMPT)
        assert not listeners([screen.process.pid, *descendants(screen.process.pid)])
        screen.type("Hello\r")
        screen.wait_for("assistant: user: Hello")
        screen.type("\x03")
        screen.wait_for("stopped")
        screen.wait_for(PROMPT)
        screen.type("again\r")
        screen.wait_for("user: again")  # the next request runs at once: the one before was aborted
        screen.type("\x03")
        screen.wait_for("stopped")
        screen.wait_for(PROMPT)
        screen.type("\x03")
        screen.wait_for("Ctrl-D or /exit ends the chat")
        children = descendants(screen.process.pid)
        screen.type("\x04")
        assert screen.process.wait(15) == 0
        assert screen.has_echo()
        wait_gone(children, 5)


def test_a_sigterm_ends_the_chat_and_gives_the_terminal_back(words: Path) -> None:
    with terminal(words) as screen:
        screen.wait_for(PROMPT)
        screen.process.send_signal(signal.SIGTERM)
        assert screen.process.wait(15) == 0
        assert screen.has_echo()


def test_a_scheduler_that_dies_ends_the_chat_with_its_reason(words: Path) -> None:
    with terminal(words, fake="step=0.01") as screen:
        screen.wait_for(PROMPT)
        screen.type("Hello\r")
        screen.wait_for("user: Hello")
        children = descendants(screen.process.pid)
        (scheduler,) = [pid for pid in children if b"fake_scheduler" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(scheduler, signal.SIGKILL)
        screen.wait_for("scheduler-0 was killed by SIGKILL while serving")
        assert screen.process.wait(15) == 70
        assert screen.has_echo()
        wait_gone(children, 5)


def test_a_shell_that_is_killed_leaves_the_terminal_as_it_was(words: Path) -> None:
    with terminal(words) as screen:
        assert screen.has_echo()
        screen.wait_for(PROMPT)
        assert not screen.has_echo()
        children = descendants(screen.process.pid)
        (shell,) = [pid for pid in children if b"server.shell" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(shell, signal.SIGKILL)
        screen.wait_for("frontend was killed by SIGKILL")
        assert screen.process.wait(15) == 70
        assert screen.has_echo()
        wait_gone(children, 5)


def test_a_start_that_fails_is_one_line(words: Path) -> None:
    done = talk("Hello\n", words, fake="fail=ModelLoadFailed")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "minisgl: scheduler-0: the fake was told to fail"
