"""A registered name leads to a class of that name; adding a model takes one small file."""

import ast
from pathlib import Path

import pytest

import minisgl.models
from minisgl.models.decoder import Decoder
from minisgl.models.registry import MODELS, find
from minisgl.plan.families import FAMILIES

pytestmark = pytest.mark.cpu


@pytest.mark.parametrize("architecture", MODELS)
def test_an_architecture_is_a_decoder_in_a_file_of_at_most_100_lines(architecture: str) -> None:
    model = find(architecture)
    assert issubclass(model, Decoder)
    assert model.__name__ == architecture
    file = Path(minisgl.models.__path__[0]) / f"{MODELS[architecture].rpartition('.')[2]}.py"
    assert len(file.read_text().splitlines()) <= 100
    assert ast.get_docstring(ast.parse(file.read_text()))


def test_a_family_whose_config_is_read_has_a_class_and_no_other_has() -> None:
    assert list(MODELS) == list(FAMILIES)
