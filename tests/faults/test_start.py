"""A26, A27, A28 and other troubles of a start: a server that cannot start says why in one line, with an exit code."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.server import SLACK, TINY, Server, descendants, running, wait_gone
from support.words import save_dummy

pytestmark = pytest.mark.cpu


def run(*flags: str) -> tuple[int, str, float]:
    """Exit code, what was said, seconds."""
    started = time.monotonic()
    command = [sys.executable, "-m", "minisgl", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr + done.stdout, time.monotonic() - started


# ---- A26: where to listen


def test_a_port_in_use_is_told_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as owner:
        port = owner.getsockname()[1]
        code, said, seconds = run("--model=/nowhere/model", f"--port={port}")
    assert code == 1
    assert said.splitlines()[-1].startswith(f"minisgl: port {port} on 127.0.0.1 is in use")
    assert seconds < 2 * SLACK


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host"])
def test_a_host_that_is_not_ours_is_told(host: str) -> None:
    code, said, seconds = run("--model=/nowhere/model", f"--host={host}")
    assert code == 1
    assert host in said.splitlines()[-1]
    assert "Traceback" not in said
    assert seconds < 2 * SLACK


# ---- A27: what to load


def broken(name: str, folder: Path) -> Path:
    """A model folder with one fault."""
    if name == "missing":
        return folder / "nowhere"
    save_dummy(folder)
    match name:
        case "no config":
            (folder / "config.json").unlink()
        case "no weights":
            pass
        case "truncated weights":
            header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
            (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(3))
        case "a folder for a file":
            (folder / "tokenizer.json").unlink()
            (folder / "tokenizer.json").mkdir()
        case "another architecture":
            config = json.loads((folder / "config.json").read_text())
            config |= {"architectures": ["NobodysModel"], "model_type": "nobody"}
            (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("name", "reason", "sentence"),
    [
        ("missing", "ModelNotFound", "no such folder"),
        ("truncated weights", "ModelLoadFailed", "model.safetensors"),
        pytest.param("a folder for a file", "ModelLoadFailed", "tokenizer.json", marks=pytest.mark.faults),
        pytest.param("no config", "ModelNotFound", "config.json", marks=pytest.mark.faults),
        pytest.param("no weights", "ModelLoadFailed", "no weights", marks=pytest.mark.faults),
        pytest.param("another architecture", "UnsupportedModel", "NobodysModel", marks=pytest.mark.faults),
    ],
)
def test_a_folder_that_is_no_model_is_told_in_one_line(tmp_path: Path, name: str, reason: str, sentence: str) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    folder = tmp_path / "model"
    folder.mkdir()
    flags = (f"--model-path={broken(name, folder)}", "--device=cpu", "--num-tokens=8192")
    with Server(logs, *flags, scheduler="faulty") as server:
        assert server.wait_end(60) == 1
        last = server.log.splitlines()[-1]
        assert last.startswith("minisgl: ")
        assert sentence in last
        assert "Traceback" not in server.log
        left = json.loads(server.termination_path.read_text())
        assert (left["reason"], left["message"]) == (reason, last.removeprefix("minisgl: "))
        assert left["process"] in last


@pytest.mark.parametrize(
    ("reason", "code"), [pytest.param("OutOfMemory", 1, marks=pytest.mark.faults), ("InvalidArguments", 2)]
)
def test_a_reason_is_one_line_and_an_exit_code(model: Path, reason: str, code: int) -> None:
    with Server(model, fake=f"fail={reason}") as server:
        assert server.wait_end(30) == code
        assert server.log.splitlines()[-1] == "minisgl: scheduler-0: the fake was told to fail"
        assert "Traceback" not in server.log
        left = json.loads(server.termination_path.read_text())
        assert (left["process"], left["rank"], left["reason"]) == ("scheduler-0", 0, reason)
        assert left["hint"]


# ---- A28: more ranks than the machine or the model can take


@pytest.mark.faults
def test_heads_that_do_not_divide_are_refused_with_what_works(model: Path) -> None:
    with Server(model, *TINY, "--tp=3", scheduler="faulty") as server:
        server.wait_for(lambda: len(server.pids()) == 6, 20)
        pids = descendants(server.process.pid)
        assert server.wait_end(90) in (1, 2)
        wait_gone(pids, 5)
        last = server.log.splitlines()[-1]
        assert "3" in last
        assert "2" in last  # a size that works
        assert "Traceback" not in server.log


@pytest.mark.faults
def test_a_gpu_that_is_not_there_is_told(model: Path) -> None:
    flags = [flag for flag in TINY if "device" not in flag]
    code, said, _ = run(f"--model={model}", "--device=cuda", "--tp=2", "--port=0", *flags)
    assert code == 1
    assert "--device cuda" in said.splitlines()[-1]
    assert "Traceback" not in said


# ---- while it starts


def test_a_start_that_hangs_is_told_while_it_hangs_and_probes_answer(model: Path) -> None:
    with Server(model, "--tp=2", "--watchdog-timeout-seconds=2", fake="hold=weights:60,quiet=1") as server:
        server.wait_phase("scheduler-1", "weights")
        early = server.complete("abc")
        assert (early.status_code, early.json()["error"]["code"]) == (503, "not_ready")
        assert int(early.headers["retry-after"]) > 0
        for path, status in {"/livez": 200, "/readyz": 503, "/startupz": 503, "/server_info": 503}.items():
            assert server.client.get(path).status_code == status
        assert server.metric('minisgl_weights_bytes{process="scheduler-1"}') == 100
        server.wait_for(lambda: "waiting process=scheduler-1 phase=weights seconds=" in server.log, 20)
        server.wait_for(lambda: seconds_of(server, "scheduler-1") > 3, 10)
        assert server.client.get("/livez").status_code == 200  # loading is no hang, however long
        server.process.send_signal(signal.SIGTERM)
        assert server.wait_end(3 * SLACK) == 0
        assert "stop during start; not ready:" in server.log
        assert "scheduler-1 in start phase weights (for " in server.log


@pytest.mark.faults
def test_a_start_that_hangs_is_given_up_with_process_phase_and_bytes(model: Path) -> None:
    with Server(model, "--tp=2", "--start-stall-seconds=45", fake="hold=weights:600") as server:
        server.wait_phase("scheduler-1", "weights")
        pids = descendants(server.process.pid)
        assert server.wait_end(90) == 1
        wait_gone(pids, 5)
        last = server.log.splitlines()[-1]
        assert "nothing has advanced for" in last
        assert "in start phase weights" in last
        assert "0 of 100" in last
        left = json.loads(server.termination_path.read_text())
        assert (left["reason"], left["process"], left["rank"]) == ("StartStalled", "scheduler-0", 0)
        assert "startStallSeconds" in left["hint"]
        assert "in phase" in server.log.partition("stacks process=scheduler-0")[2]  # the line that hangs


@pytest.mark.faults
def test_a_slow_start_that_advances_is_not_given_up(model: Path) -> None:
    with running(model, "--start-stall-seconds=45", fake="creep=60") as server:
        assert server.complete("abc", max_tokens=1).status_code == 200


def seconds_of(server: Server, process: str) -> float:
    place = server.client.get("/startupz").json()["processes"][process]
    assert (place["phase"], place["done"], place["total"]) == ("weights", 0, 100)
    return float(place["seconds"])


def test_an_ipc_address_in_use_is_one_line(model: Path) -> None:
    with Server(model, fake="hold=warm-up:2") as server:
        server.wait_phase("scheduler-0", "warm-up")
        (server.ipc() / "scheduler").mkdir()  # the folder is private and new: only the test can come between
        assert server.wait_end(20) == 1
        last = server.log.splitlines()[-1]
        assert "/scheduler is in use: another server" in last
        assert "Traceback" not in server.log
        assert json.loads(server.termination_path.read_text())["reason"] == "AddressInUse"
