"""Weights into slots: one file or many, whole or a rank's part, and the sentences for broken checkpoints."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from minisgl.errors import StartError
from minisgl.layers.weight import Slot
from minisgl.models import pieces
from minisgl.models.weights import fill_randomly, load
from minisgl.termination import Reason

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
    assert (heard[0], heard[-1]) == ((0, 68), (68, 68))
    assert heard[1] in [(48, 68), (20, 68)], "readers do not wait for each other"


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


def test_a_large_tensor_is_read_in_chunks_and_reported_between_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, small = torch.randn(100, 8), torch.randn(30, 8, 3)
    save_file({"large": large, "small": small}, tmp_path / "model.safetensors")
    monkeypatch.setattr(pieces, "PIECE_BYTES", 7 * 8 * 4)
    wanted = [
        Slot("large", torch.empty(100, 4), 1, 4),
        Slot("large", torch.empty(50, 8), 0, 50),
        Slot("small", torch.empty(10, 8, 3), 0, 20),
    ]
    heard: list[int] = []
    total = load(wanted, tmp_path, lambda done, total: heard.append(done))
    assert torch.equal(wanted[0].target, large[:, 4:])
    assert torch.equal(wanted[1].target, large[50:])
    assert torch.equal(wanted[2].target, small[20:])
    assert (heard[0], heard[-1]) == (0, total)
    assert heard == sorted(set(heard))
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1)
    heard.clear()
    load(wanted, tmp_path, lambda done, total: heard.append(done))
    assert 50 < len(heard) <= 101, "a small model tells every hundredth"


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


def test_a_file_cut_anywhere_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": A, "b": B}, file)
    whole = file.read_bytes()
    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        with pytest.raises(StartError, match=r"model.safetensors cannot be read: .*; the checkpoint is incomplete"):
            load(slots(), tmp_path)


def test_no_flipped_bit_of_the_header_goes_through_to_the_weights(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": A, "b": B}, file, metadata={"format": "pt"})
    whole = file.read_bytes()
    sentences: list[str] = []
    for bit in range(8 * (8 + int.from_bytes(whole[:8], "little"))):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        file.write_bytes(broken)
        wanted = slots()
        try:
            load(wanted, tmp_path)
        except StartError as error:
            sentences.append(str(error))
        else:  # the flip was in a comment
            assert torch.equal(wanted[0].target, A)
            assert torch.equal(wanted[1].target, B)
    assert len(sentences) > 1000
    assert all(str(file) in sentence for sentence in sentences)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_quantized_tensors_are_not_taken_for_numbers(dtype: torch.dtype, tmp_path: Path) -> None:
    save_file({"a": A.to(dtype), "b": B}, tmp_path / "model.safetensors")
    with pytest.raises(StartError, match=r"tensor a in .*model.safetensors is stored as [IUF]8.*quantized") as caught:
        load(slots(), tmp_path)
    assert caught.value.reason is Reason.UNSUPPORTED_MODEL


def write_index(folder: Path, content: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        ({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}, r"/2.safetensors does not exist"),
        ({"weight_map": {"a": "1.safetensors"}}, r"index.json names no file for tensor b"),
        ({"weight_map": {"a": "1.safetensors", "b": "1.safetensors"}}, r"/1.safetensors has no tensor b"),
        ({"weight_map": {"a": "1.safetensors", "b": "../2.safetensors"}}, r"names ../2.safetensors, which is not in"),
        ({"weight_map": {"a": "1.safetensors", "b": "/etc/passwd"}}, r"names /etc/passwd, which is not in its folder"),
        ({"weight_map": {"a": "1.safetensors", "b": "."}}, r"cannot be read: .*directory"),
        ({"weight_map": {"a": 1}}, r"index.json cannot be read"),
        ({"weight_map": ["a"]}, r"index.json cannot be read"),
        ({}, r"index.json has no 'weight_map'"),
        ([], r"index.json cannot be read"),
        ("{", r"index.json cannot be read"),
    ],
    ids=str,
)
def test_an_index_that_leads_nowhere_is_refused(index: Any, sentence: str, tmp_path: Path) -> None:
    save_file({"a": A}, tmp_path / "1.safetensors")
    write_index(tmp_path, index)
    with pytest.raises(StartError, match=sentence) as caught:
        load(slots(), tmp_path)
    assert caught.value.reason is Reason.MODEL_LOAD_FAILED


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json", "1.safetensors"])
def test_a_link_to_nowhere_is_named_with_its_end(name: str, tmp_path: Path) -> None:
    if name == "1.safetensors":
        write_index(tmp_path, {"weight_map": {"a": name, "b": name}})
    (tmp_path / name).symlink_to(tmp_path.parent / "blobs" / "gone")
    with pytest.raises(StartError, match=rf"/{name} is a link to .*/blobs/gone, which does not exist"):
        load(slots(), tmp_path)


def test_a_link_out_of_the_folder_is_followed_as_the_hub_cache_needs(tmp_path: Path) -> None:
    folder = tmp_path / "snapshot"
    folder.mkdir()
    save_file({"a": A, "b": B}, tmp_path / "blob")
    (folder / "model.safetensors").symlink_to("../blob")
    wanted = slots()
    load(wanted, folder)
    assert torch.equal(wanted[0].target, A)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything; others may not."""
    uid = os.geteuid()
    if uid == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(uid)


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_a_file_that_this_user_may_not_read_is_named(name: str) -> None:
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        folder.chmod(0o755)
        save_file({"a": A, "b": B}, folder / "model.safetensors")
        if name.endswith("json"):
            write_index(folder, {"weight_map": {}})
        (folder / name).chmod(0)
        with pytest.raises(StartError, match=rf"/{name} may not be read by this user"), as_nobody():
            load(slots(), folder)


def test_other_formats_are_named_and_not_read(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(StartError, match=r"only pytorch_model.bin; weights are read from model.safetensors"):
        load(slots(), tmp_path)


def test_random_weights_are_the_same_on_every_run() -> None:
    one, two = slots(), slots()
    assert fill_randomly(one) == fill_randomly(two) == 68
    assert torch.equal(one[0].target, two[0].target)
    assert torch.isfinite(one[0].target).all()


def test_random_matrices_have_different_rows_and_keep_the_scale() -> None:
    one, two = (Slot(name, torch.empty(1500, 1024)) for name in "ab")
    fill_randomly([one, two])
    assert len(one.target[:, 0].unique()) == 1500
    assert not torch.equal(one.target, two.target)
    assert one.target.std() == pytest.approx(1024**-0.5, rel=0.01)
