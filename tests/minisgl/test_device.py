"""What a machine gives, read from files as kernels write them."""

from pathlib import Path

import pytest

from minisgl import device
from minisgl.errors import StartError
from minisgl.plan.device import available_memory
from minisgl.termination import Reason


def files(root: Path, contents: dict[str, str]) -> Path:
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n"}
V2 = {
    "sys/fs/cgroup/memory.max": "3000000\n",
    "sys/fs/cgroup/memory.current": "1000000\n",
    "sys/fs/cgroup/memory.stat": "anon 700000\ninactive_file 200000\n",
}
V1 = {
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "2000000\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "500000\n",
}


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        (MEMINFO, 8000 * 1024),
        (MEMINFO | V2, 2_200_000),
        (MEMINFO | V1, 1_500_000),
        (MEMINFO | V2 | {"sys/fs/cgroup/memory.max": "max\n"}, 8000 * 1024),
        (MEMINFO | V2 | {"sys/fs/cgroup/memory.current": "4000000\n"}, 0),
    ],
)
def test_memory_is_the_machines_or_the_containers(contents: dict[str, str], expected: int, tmp_path: Path) -> None:
    assert available_memory(files(tmp_path, contents)) == expected


@pytest.mark.parametrize(("device_name", "ranks", "visible"), [("cuda", 2, 2), ("cuda", 1, 8), ("cpu", 64, 0)])
def test_ranks_that_have_a_device_each_may_join(device_name: str, ranks: int, visible: int) -> None:
    device.check_devices(device_name, ranks, visible)


@pytest.mark.parametrize(("visible", "words"), [(1, "1 is visible"), (2, "2 are visible")])
def test_more_ranks_than_gpus_are_refused_with_both_numbers(visible: int, words: str) -> None:
    with pytest.raises(StartError) as raised:
        device.check_devices("cuda", 4, visible)
    assert raised.value.reason is Reason.DEVICE_UNAVAILABLE
    for part in ("needs 4 GPUs", words, f"--tp {visible}"):
        assert part in str(raised.value)


def test_a_cpu_has_room_for_any_number_of_ranks() -> None:
    assert device.num_devices("cpu") > 64


def test_a_layout_for_16_bits_needs_the_instructions_of_a_server_cpu(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("model name : x\nflags\t\t: fpu avx2 avx512bw avx512vl avx512dq\n")
    assert device.has_avx512(tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("flags\t\t: fpu avx2 avx512bw\n")
    assert not device.has_avx512(tmp_path / "cpuinfo")
    assert not device.has_avx512(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("flags", "palette", "broken"),
    [("amx_tile amx_bf16", 0, True), ("amx_tile amx_bf16", 1, False), ("avx512f", 0, False)],
)
def test_amx_without_a_palette_is_broken(
    flags: str, palette: int, broken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(device, "_cpuid_eax", lambda leaf: palette)
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    assert device.amx_is_broken(tmp_path / "cpuinfo") is broken


@pytest.mark.skipif(device.platform.machine() != "x86_64", reason="CPUID is an x86 instruction")
def test_the_processor_answers_the_probe() -> None:
    assert device._cpuid_eax(0) >= 1, "leaf 0 names the highest leaf"


def test_what_the_user_set_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "amx_is_broken", lambda: True)
    environ = {"OMP_NUM_THREADS": "5", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    device.prepare_cpu(1, environ)
    assert (environ["OMP_NUM_THREADS"], environ["ONEDNN_MAX_CPU_ISA"]) == ("5", "AVX2")
    empty: dict[str, str] = {}
    device.prepare_cpu(64, empty)
    assert (empty["OMP_NUM_THREADS"], empty["ONEDNN_MAX_CPU_ISA"]) == ("1", device.AMX_CAP)


def test_compiled_kernels_go_where_the_models_are_kept() -> None:
    environ = {"MINISGL_CACHE": "/volume"}
    device.keep_kernels(environ)
    assert environ["TRITON_CACHE_DIR"] == "/volume/jit/triton"
    assert environ["FLASHINFER_WORKSPACE_BASE"] == "/volume/jit/flashinfer"
    assert environ["FLASH_ATTENTION_CUTE_DSL_CACHE_DIR"] == "/volume/jit/cute/flash_attn"


def test_a_folder_that_the_user_named_stays_and_draws_what_is_built_on_it() -> None:
    environ = {"MINISGL_CACHE": "/cache", "CUTE_DSL_CACHE_DIR": "/jit/cute", "QUACK_CACHE_DIR": "/mine"}
    device.keep_kernels(environ)
    assert environ["CUTE_DSL_CACHE_DIR"] == "/jit/cute"
    assert environ["FLASH_ATTENTION_CUTE_DSL_CACHE_DIR"] == "/jit/cute/flash_attn"
    assert environ["QUACK_CACHE_DIR"] == "/mine"
    assert "QUACK_CACHE_ENABLED" not in environ


def test_without_a_folder_every_library_keeps_to_its_own_ways_but_for_one_that_anybody_can_write_to() -> None:
    environ: dict[str, str] = {}
    device.keep_kernels(environ)
    assert environ == {"QUACK_CACHE_ENABLED": "0"}
