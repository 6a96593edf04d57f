"""A registered name leads to a class of that name; adding a model takes one small file."""

import ast
from pathlib import Path

import pytest

import minisgl.models
from minisgl.errors import StartError
from minisgl.models.decoder import Decoder
from minisgl.models.registry import MODELS, find

pytestmark = pytest.mark.cpu


@pytest.mark.parametrize("architecture", MODELS)
def test_an_architecture_is_a_decoder_in_a_file_of_at_most_100_lines(architecture: str) -> None:
    model = find(architecture)
    assert issubclass(model, Decoder)
    assert model.__name__ == architecture
    file = Path(minisgl.models.__path__[0]) / f"{MODELS[architecture].rpartition('.')[2]}.py"
    assert len(file.read_text().splitlines()) <= 100
    assert ast.get_docstring(ast.parse(file.read_text()))


def test_an_unknown_architecture_is_refused_with_those_there_are() -> None:
    with pytest.raises(StartError, match=r"architecture GPT2LMHeadModel.*serves LlamaForCausalLM, .*Qwen3Moe"):
        find("GPT2LMHeadModel")
