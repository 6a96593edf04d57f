"""One rank needs no peers, and two agree over a file; sums inside a model are tested with real ranks elsewhere."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from minisgl.distributed import group as group_module
from minisgl.distributed.group import Group
from minisgl.errors import StartError

pytestmark = pytest.mark.cpu

RANK = """
import sys
from pathlib import Path
import torch
from minisgl.distributed.group import Group
rank = int(sys.argv[1])
group = Group.join(rank, 2, "cpu", Path(sys.argv[2]))
total = group.sum(torch.tensor([1.0, rank]))
joined = group.concat_on_first(torch.full((2, 1), float(rank)))
print(total.tolist(), None if joined is None else joined.tolist(), group.minimum(rank + 5, "cpu"))
"""


def test_one_rank_is_its_own_sum_and_minimum() -> None:
    group, x = Group(), torch.ones(2)
    assert group.sum(x) is x
    assert group.concat_on_first(x) is x
    assert group.minimum(3, "cpu") == 3


def test_two_ranks_meet_over_a_file_and_agree(tmp_path: Path) -> None:
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    said = [process.communicate(timeout=60)[0].splitlines()[-1] for process in ranks]
    assert said == ["[2.0, 1.0] [[0.0, 1.0], [0.0, 1.0]] 5", "[2.0, 1.0] None 5"]


def test_a_rank_that_nccl_refuses_says_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise dist.DistBackendError("NCCL error: unhandled system error\nncclSystemError: open of /dev/shm failed")

    monkeypatch.setattr(dist, "init_process_group", refuse)
    monkeypatch.setattr(group_module, "num_devices", lambda device: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda rank: None)
    with pytest.raises(StartError) as raised:
        Group.join(1, 2, "cuda", tmp_path, own_nccl=False)
    sentence = str(raised.value)
    for part in ("rank 1 of 2", "nccl", "unhandled system error", "NCCL_DEBUG=INFO", "--disable-pynccl"):
        assert part in sentence
    assert "\n" not in sentence


def test_more_ranks_than_gpus_are_refused_before_anybody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_module, "num_devices", lambda device: 2)
    with pytest.raises(StartError, match="needs 4 GPUs, but 2 are visible"):
        Group.join(0, 4, "cuda", tmp_path)
    assert not list(tmp_path.iterdir())


def test_our_own_binding_says_what_nccl_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real NCCL on a machine without a GPU: it starts, and refuses at the first thing that needs one."""
    if torch.cuda.is_available():
        pytest.skip("NCCL has nothing to refuse here")
    monkeypatch.setattr(group_module, "num_devices", lambda device: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda rank: None)
    with pytest.raises(StartError) as raised:
        Group.join(0, 2, "cuda", tmp_path)
    sentence = str(raised.value)
    for part in ("rank 0 of 2", "nccl", "ncclCommInitRank", "--disable-pynccl"):
        assert part in sentence
