"""What a machine gives, read from files as kernels write them."""

from pathlib import Path

import pytest

from minisgl import device


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
    assert device.available_memory(files(tmp_path, contents)) == expected


@pytest.mark.parametrize(("quota", "expected"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None)])
def test_cores_are_limited_by_the_containers_quota(quota: str, expected: int | None, tmp_path: Path) -> None:
    cores = device.available_cores(files(tmp_path, {"sys/fs/cgroup/cpu.max": quota}))
    assert cores == (expected or device.available_cores(tmp_path))


@pytest.mark.parametrize(("cores", "ranks", "threads"), [(1, 1, 1), (2, 1, 1), (16, 1, 15), (16, 4, 3), (2, 4, 1)])
def test_one_core_is_left_to_others(cores: int, ranks: int, threads: int) -> None:
    assert device.threads_per_rank(cores, ranks) == threads


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
