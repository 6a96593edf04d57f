"""Who computes with how many threads."""

from pathlib import Path

import pytest

from minisgl import threads


@pytest.mark.parametrize(("quota", "expected"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None)])
def test_cores_are_limited_by_the_containers_quota(quota: str, expected: int | None, tmp_path: Path) -> None:
    file = tmp_path / "sys/fs/cgroup/cpu.max"
    file.parent.mkdir(parents=True)
    file.write_text(f"{quota}\n")
    assert threads.available_cores(tmp_path) == (expected or threads.available_cores(tmp_path / "nowhere"))


@pytest.mark.parametrize(("cores", "ranks", "num_threads"), [(1, 1, 1), (2, 1, 1), (16, 1, 15), (16, 4, 3), (2, 4, 1)])
def test_one_core_is_left_to_others(cores: int, ranks: int, num_threads: int) -> None:
    assert threads.threads_per_rank(cores, ranks) == num_threads


def test_a_rank_gets_its_share_in_every_pool() -> None:
    settings = threads.settings_of("scheduler", ranks=3, cores=16, environ={})
    assert {settings[pool] for pool in threads.POOLS} == {"5"}


def test_what_the_user_set_is_for_the_ranks_only() -> None:
    environ = {"OMP_NUM_THREADS": "7"}
    assert threads.settings_of("scheduler", ranks=1, cores=16, environ=environ)["MKL_NUM_THREADS"] == "7"
    for role in ("frontend", "tokenizer", "detokenizer"):
        settings = threads.settings_of(role, ranks=1, cores=16, environ=environ)
        assert {settings[pool] for pool in threads.POOLS} == {"1"}
