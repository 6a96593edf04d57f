"""Weights into slots: one file or many, whole or a rank's part, and the sentences for broken checkpoints."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from minisgl.errors import StartError
from minisgl.layers.weight import Slot
from minisgl.models.weights import fill_randomly, load

pytestmark = pytest.mark.cpu

A, B = torch.arange(12.0).view(4, 3), torch.arange(5.0)


def slots() -> list[Slot]:
    return [Slot("a", torch.empty(4, 3)), Slot("b", torch.empty(5))]


def test_one_file_fills_all_slots_and_reports_progress(tmp_path: Path) -> None:
    save_file({"a": A, "b": B, "not wanted": B.clone()}, tmp_path / "model.safetensors")
    heard: list[tuple[int, int]] = []
    wanted = slots()
    assert load(wanted, tmp_path, lambda done, total: heard.append((done, total))) == 68
    assert torch.equal(wanted[0].target, A)
    assert torch.equal(wanted[1].target, B)
    assert heard == [(0, 68), (48, 68), (68, 68)]


def test_an_index_leads_to_several_files(tmp_path: Path) -> None:
    save_file({"a": A}, tmp_path / "1.safetensors")
    save_file({"b": B}, tmp_path / "2.safetensors")
    index = {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    wanted = slots()
    load(wanted, tmp_path)
    assert torch.equal(wanted[0].target, A)
    assert torch.equal(wanted[1].target, B)


def test_a_slot_may_be_a_part_of_a_tensor_and_of_another_type(tmp_path: Path) -> None:
    save_file({"a": A}, tmp_path / "model.safetensors")
    rows, columns = torch.empty(2, 3, dtype=torch.bfloat16), torch.empty(4, 1)
    load([Slot("a", rows, 0, 2), Slot("a", columns, 1, 1)], tmp_path)
    assert torch.equal(rows.float(), A[2:4])
    assert torch.equal(columns, A[:, 1:2])


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"a": A}, "has no tensor b"),
        ({"a": A, "b": torch.zeros(4)}, r"tensor b in .* has shape \[4\], this model needs \[5\]"),
        ({"a": torch.zeros(4), "b": B}, r"tensor a in .* has shape \[4\]"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(
    tensors: dict[str, torch.Tensor], sentence: str, tmp_path: Path
) -> None:
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(StartError, match=sentence):
        load(slots(), tmp_path)


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    save_file({"a": A, "b": B}, tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:-8])
    with pytest.raises(StartError, match="cannot be read"):
        load(slots(), tmp_path)


def test_other_formats_are_named_and_not_read(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(StartError, match=r"only pytorch_model.bin; weights are read from model.safetensors"):
        load(slots(), tmp_path)


def test_random_weights_are_the_same_on_every_run() -> None:
    one, two = slots(), slots()
    assert fill_randomly(one) == fill_randomly(two) == 68
    assert torch.equal(one[0].target, two[0].target)
    assert torch.isfinite(one[0].target).all()
