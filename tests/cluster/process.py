"""Starting programs and ending exactly those we started: a recorded pid counts only while its start time and the
machine's boot are the recorded ones, so a reused number is never signalled. Nothing here looks at names."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.paths import LOGS, PIDS
from cluster.say import ClusterError

# Nothing of the caller's environment reaches a daemon but this: proxies, CA overrides and Python paths are his alone.
CLEAN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MORTAL = ("setpriv", "--pdeathsig", "KILL")  # ends the program when we are killed
# Mounts and children of a build die with it, however it ends.
ISOLATED = (*MORTAL, "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc",
            "--propagation", "private")  # fmt: skip
TAIL_LINES = 12


def run(
    argv: Sequence[str | Path],
    *,
    log: str,
    next_step: str,
    timeout: float,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    text: str | None = None,
) -> str:
    """Run a program to its end and return its stdout; stderr goes to the log `log`, shown in part when it fails."""
    LOGS.mkdir(parents=True, exist_ok=True)
    path = LOGS / f"{log}.log"
    command = [str(part) for part in argv]
    with path.open("a") as out:
        print(f"$ {' '.join(command)}", file=out, flush=True)
        start = out.tell()
        try:
            done = subprocess.run(
                command, cwd=cwd, env=env, input=text, stdout=subprocess.PIPE, stderr=out, text=True,
                timeout=timeout, check=False, stdin=subprocess.DEVNULL if text is None else None,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"{log}: no end after {timeout:.0f} s", next_step, path) from error
        except FileNotFoundError as error:
            raise ClusterError(f"{log}: {command[0]} is not installed", "python -m cluster build", path) from error
    if done.returncode:
        with path.open(errors="replace") as written:
            written.seek(start)
            tail = "".join(f"  | {line}" for line in (done.stdout + written.read()).splitlines(True)[-TAIL_LINES:])
        raise ClusterError(f"{log}: exit {done.returncode}\n{tail.rstrip()}", next_step, path)
    return done.stdout


def start_time(pid: int) -> str | None:
    """Clock ticks after boot at which `pid` began; None for one that is gone or a zombie."""
    try:
        # The name in field 2 may hold blanks and brackets; the fields after it do not.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else fields[18]


def boot_id() -> str:
    """Changes with every start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def record(name: str, pid: int) -> None:
    """Remember a process of ours under `name`."""
    PIDS.mkdir(parents=True, exist_ok=True)
    fresh = PIDS / f".{name}"
    fresh.write_text(f"{pid} {start_time(pid)} {boot_id()}\n")
    fresh.replace(PIDS / name)


def recorded(name: str) -> int | None:
    """The pid recorded under `name` while that very process lives."""
    try:
        pid, began, boot = (PIDS / name).read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(pid) if boot == boot_id() and start_time(int(pid)) == began else None


def end(name: str, timeout: float = 10) -> None:
    """Kill the recorded process and wait until it is gone."""
    pid = recorded(name)
    if pid is None:
        return
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    if not wait_for(lambda: recorded(name) is None, timeout):
        raise ClusterError(
            f"{name} (pid {pid}) does not end", f"look at /proc/{pid}/stack; then: python -m cluster down"
        )


def wait_for(condition: Callable[[], bool], timeout: float, every: float = 0.05) -> bool:
    """Poll until `condition()` is true; False when it never was."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True
