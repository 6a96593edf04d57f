"""What the door costs: streamed tokens through scheduler link, detokenizer, front end and SSE, to a client that counts.

    .venv/bin/python runtime/benchmarks/door.py [--model FOLDER] [--rates 120,240,480] [--py-spy PROGRAM]

The real processes with a clock in the engine's place (`door_scheduler.py`): at each tick every stream gets a token, so
120 ticks a second are 30,720 tokens a second for 256 streams. One client process on the same machine holds all
streams in a closed loop. A front end that falls behind merges tokens, so events per token say whether it kept up.
Processor time per token does not depend on what else runs on the machine; from it follows what the busiest process
could do alone on a core. With --py-spy a last run is sampled. Prints tables, writes results/door.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop
from report import MODEL, write

HERE = Path(__file__).resolve().parent
TICK = os.sysconf("SC_CLK_TCK")
PROMPT = "Tell me, in plain words and at some length, how a letter finds its way from one town to another by post."


class Reader(asyncio.Protocol):
    """One connection: sends its request again until the round is over; counts events, reads no JSON."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def connection_made(self, transport: asyncio.WriteTransport) -> None:  # type: ignore[override]
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        client = self._client
        client.events += data.count(b"data: {")
        if data.endswith(b"0\r\n\r\n"):
            client.tokens += client.max_tokens
            client.answers += 1
            if client.left > 0:
                self._ask()
            else:
                self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._client.open -= 1
        if not self._client.open:
            self._client.over.set_result(None)

    def _ask(self) -> None:
        self._client.left -= 1
        self._transport.write(self._client.request)


class Client:
    """All streams of one round."""

    def __init__(self, port: int, streams: int, answers: int, max_tokens: int) -> None:
        body = {
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": max_tokens,
            "ignore_eos": True,
            "skip_special_tokens": False,  # the prompt's own are among its words: every token is text
            "stream": True,
        }
        content = json.dumps(body).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        self.request = f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
        self.port, self.open, self.left, self.max_tokens = port, streams, answers, max_tokens
        self.events = self.tokens = self.answers = 0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        self.over = loop.create_future()
        for _ in range(self.open):
            await loop.create_connection(lambda: Reader(self), "127.0.0.1", self.port)
        await self.over


@contextmanager
def server(model: Path, rate: float) -> Iterator[tuple[int, dict[str, int]]]:
    """Port, and process ids by name."""
    environment = os.environ | {
        "PYTHONPATH": f"{HERE}:{HERE.parent}",
        "DOOR_STEPS_PER_SECOND": str(rate),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, __file__, "serve", "--model-path", str(model), "--port", "0", "--silent-output"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # noqa: S603  # ourselves
        try:
            yield wait_port(process, log), children(process.pid)
        finally:
            process.terminate()
            process.wait(30)


def wait_port(process: subprocess.Popen[bytes], log: Any) -> int:
    while process.poll() is None:
        log.seek(0)
        if found := re.search(r"ready at http://[^:]+:(\d+)", log.read()):
            return int(found[1])
        time.sleep(0.1)
    log.seek(0)
    raise SystemExit(f"the server did not start:\n{log.read()}")


def children(parent: int) -> dict[str, int]:
    """Name, by its module, to process id."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                module = (folder / "cmdline").read_bytes().split(b"\0")[2].decode()
                name = {"tokenizer.process": "detokenizer", "server.frontend": "front end"}
                found[name.get(module.removeprefix("minisgl."), "scheduler")] = int(folder.name)
        except (OSError, ValueError):
            continue
    return found


def cpu_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / TICK


def own_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(model: Path, rate: float, args: argparse.Namespace, spy: bool = False) -> dict[str, Any]:
    with server(model, rate) as (port, pids):
        uvloop.run(Client(port, args.streams, args.streams, 16).run())  # warms up
        before = {name: cpu_seconds(pid) for name, pid in pids.items()} | {"client": own_seconds()}
        client = Client(port, args.streams, args.streams * args.rounds, args.max_tokens)
        load, started = os.getloadavg()[0], time.monotonic()
        spies = {name: start_spy(args.py_spy, pids[name]) for name in ("front end", "detokenizer")} if spy else {}
        uvloop.run(client.run())
        seconds = time.monotonic() - started
        after = {name: cpu_seconds(pid) for name, pid in pids.items()} | {"client": own_seconds()}
        profile = {name: read_spy(*started) for name, started in spies.items()}
    used = {name: round((after[name] - before[name]) / client.tokens * 1e6, 2) for name in after}
    row = {
        "steps_per_second": rate,
        "offered_tokens_per_second": round(rate * args.streams),
        "tokens_per_second": round(client.tokens / seconds),
        "events_per_token": round((client.events - 2 * client.answers) / client.tokens, 3),  # role, end
        "cpu_us_per_token": used,
        "front_end_alone_tokens_per_second": round(1e6 / used["front end"]),
        "load": round(load, 1),
    }
    return row | ({"profile": profile} if spy else {})


def start_spy(program: str, pid: int) -> tuple[subprocess.Popen[bytes], Path]:
    out = Path(tempfile.mkstemp()[1])
    command = [program, "record", "-r", "200", "-f", "raw", "-o", str(out), "-p", str(pid), "-d", "5"]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdout=quiet, stderr=quiet), out  # noqa: S603  # named by who runs this


def read_spy(process: subprocess.Popen[bytes], out: Path) -> dict[str, float]:
    """Share of the samples in which a function was innermost; the top 16."""
    process.wait(60)
    own: Counter[str] = Counter()
    for line in out.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        own[re.sub(r":\d+\)$", ")", stack.split(";")[-1])] += int(count)
    out.unlink()
    return {name: round(count / own.total(), 3) for name, count in own.most_common(16)}


def show(row: dict[str, Any]) -> None:
    used = "  ".join(f"{name} {value:5.1f}" for name, value in row["cpu_us_per_token"].items())
    print(
        f"{row['offered_tokens_per_second']:8,} offered  {row['tokens_per_second']:8,} tokens/s  "
        f"{row['events_per_token']:.3f} events/token   us/token: {used}   load {row['load']}",
        flush=True,
    )
    for process, functions in row.get("profile", {}).items():
        print(f"{process}:", *(f"{share:7.1%}  {name}" for name, share in functions.items()), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL, help="folder with a tokenizer")
    parser.add_argument("--rates", default="120,240,480", help="ticks per second")
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3, help="answers of each stream")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--print-only", action="store_true", help="leave results/door.json as it is")
    parser.add_argument("--py-spy", metavar="PROGRAM", help="sample the busiest processes at the last rate")
    args = parser.parse_args()
    rows = []
    for rate in map(float, args.rates.split(",")):
        rows.append(measure(args.model, rate, args))
        show(rows[-1])
    if args.py_spy:
        rows.append(measure(args.model, rows[-1]["steps_per_second"], args, spy=True))
        show(rows[-1])
    if args.print_only:
        return
    write(
        Path(__file__),
        {
            "what": f"tokens per second to {args.streams} streams, {args.max_tokens} tokens each, client included",
            "rows": rows,
        },
        ("uvloop", "uvicorn", "msgspec"),
    )


def serve() -> int:
    from minisgl.argv import parse_args
    from minisgl.server import launch
    from minisgl.server.child import MODULES

    return launch.serve(parse_args(sys.argv[2:]), {**MODULES, "scheduler": "door_scheduler"})


if __name__ == "__main__":
    sys.exit(serve() if sys.argv[1:2] == ["serve"] else main())
