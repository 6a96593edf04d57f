"""The namespaces the cluster lives in: opening them, running programs inside, ending them with all they hold.

    unshare (pid `holder`, outside) ── pause (pid 1 inside, `init`) ── etcd, kube-apiserver, … , every container
Killing `init` ends every process, mount, link and rule inside: the kernel does the cleaning.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cluster.config import sandbox_script
from cluster.go import PAUSE
from cluster.paths import CONFIG, LOGS, PIDS, STATE
from cluster.process import CLEAN_PATH, end, record, recorded, run, wait_for
from cluster.say import ClusterError

MARK = "MINISGL_CLUSTER"  # every process of ours carries the cluster's folder in its environment under this name
# The holder writes its own record before it opens anything: whenever `up` is killed, `down` still finds it.
HOLDER = """
set -eu
echo "$$ $(cut -d' ' -f22 /proc/$$/stat) $(cat /proc/sys/kernel/random/boot_id)" >"$1/.holder"
mv "$1/.holder" "$1/holder"
exec unshare --mount --net --pid --uts --ipc --fork --kill-child=KILL --mount-proc --propagation private sh "$2"
"""


def environment() -> dict[str, str]:
    """The environment of everything that runs inside."""
    return {"PATH": CLEAN_PATH, "HOME": "/root", MARK: str(STATE)}


def open_sandbox(kept: tuple[Path, ...]) -> None:
    """Open the namespaces; returns when their network and mounts are ready."""
    for folder in ("var/lib", "var/log", "var/tmp", "var/cache"):
        (STATE / folder).mkdir(parents=True, exist_ok=True)
    (STATE / "var" / "tmp").chmod(0o1777)
    for name, target in (("run", "/run"), ("lock", "/run/lock")):
        (STATE / "var" / name).symlink_to(target)
    PIDS.mkdir(parents=True, exist_ok=True)
    script = CONFIG / "sandbox.sh"
    script.write_text(sandbox_script(kept, PAUSE.path()))
    log = LOGS / "sandbox.log"
    with log.open("ab") as out:
        holder = subprocess.Popen(["sh", "-c", HOLDER, "holder", str(PIDS), str(script)], stdin=subprocess.DEVNULL,
                                  stdout=out, stderr=out, start_new_session=True, env=environment())  # fmt: skip
    failed = f"the namespaces did not open; this needs root and a kernel that allows them (uid {os.geteuid()})"
    if not wait_for(lambda: (STATE / "sandboxed").exists() or holder.poll() is not None, 20, every=0.02):
        raise ClusterError(failed, "python -m cluster down", log)
    init = child_of(holder.pid)
    if holder.poll() is not None or init is None:
        raise ClusterError(failed, "read the log; then: python -m cluster up", log)
    record("init", init)


def child_of(pid: int) -> int | None:
    """The only child of `pid`."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid:
            return int(entry.name)
    return None


def init_pid() -> int:
    """Pid 1 of the sandbox, as the machine counts."""
    pid = recorded("init")
    if pid is None:
        raise ClusterError("no cluster is running", "python -m cluster up")
    return pid


def enter() -> list[str]:
    """The command that runs another one inside."""
    # Not `ip netns exec`: that one mounts /sys anew and hides the cgroups.
    return ["nsenter", "-t", str(init_pid()), "-m", "-n", "-p", "-u", "-i"]


def run_inside(argv: Sequence[str | Path], *, log: str, timeout: float = 30) -> str:
    """Run a program inside to its end; return its stdout."""
    return run(
        [*enter(), *argv], log=log, timeout=timeout, env=environment(), next_step="python -m cluster down, then up"
    )


def spawn_inside(name: str, argv: Sequence[str | Path]) -> None:
    """Start a daemon inside; its output goes to the log `name`, its pid is recorded."""
    # --no-fork: nsenter itself stays outside the pid namespace, so `$!` is the pid as the machine counts. The shell
    # ends at once, and the daemon becomes a child of the sandbox's pid 1.
    script = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'
    command = [*enter(), "--no-fork", "sh", "-c", script, "sh", str(LOGS / f"{name}.log"), *map(str, argv)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=20, check=False,
                          start_new_session=True)  # fmt: skip
    if done.returncode or not done.stdout.strip().isdigit():
        raise ClusterError(f"{name} did not start: {done.stderr.strip()}", "python -m cluster down, then up")
    record(name, int(done.stdout))


def close_sandbox() -> None:
    """End everything inside. Does nothing when nothing is open."""
    holder = recorded("holder")
    if holder is not None and recorded("init") is None and (init := child_of(holder)):
        record("init", init)  # `up` was killed before it could
    end("init", timeout=30)  # killing the inner one first lets its parent collect it: no zombie is left to pid 1
    wait_for(lambda: recorded("holder") is None, 5)
    end("holder")
