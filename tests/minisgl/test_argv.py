"""Launch arguments survive the way to a command line and back, and wrong ones get a sentence."""

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic.alias_generators import to_camel

from minisgl.args import LaunchArgs, flags
from minisgl.argv import build_parser, parse_args, to_argv, validate
from minisgl.errors import UsageError
from minisgl.schema import runtime_schema, table

NAMES = {name for name in LaunchArgs.model_fields if name not in ("model_path", "attention_backend")}
BACKENDS = st.sampled_from(["auto", "torch", "fa", "fa3", "fi"])


def legal_values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    branch = next((kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"), schema)
    if "enum" in branch:
        return st.sampled_from(branch["enum"])
    match branch["type"]:
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(branch["minimum"], branch["maximum"])
        case "number":
            return st.floats(branch["minimum"], branch["maximum"], allow_subnormal=False)
    return st.text(string.ascii_letters + string.digits + " =-_./\"'é", min_size=1)


def specs() -> st.SearchStrategy[dict[str, Any]]:
    properties = LaunchArgs.model_json_schema()["properties"]
    optional = {name: legal_values(properties[to_camel(name)]) for name in NAMES}
    optional["attention_backend"] = BACKENDS | st.tuples(BACKENDS, BACKENDS).map(",".join)
    required = {"model_path": legal_values(properties["modelPath"])}
    return st.fixed_dictionaries(required, optional=optional).filter(
        lambda spec: not ("num_pages" in spec and "num_tokens" in spec)
    )


@given(specs())
def test_arguments_survive_the_command_line_and_back(spec: dict[str, Any]) -> None:
    assert parse_args(to_argv(spec)) == LaunchArgs(**spec)


@given(specs())
def test_camel_case_keys_give_the_same_command_line(spec: dict[str, Any]) -> None:
    assert to_argv({to_camel(name): value for name, value in reversed(spec.items())}) == to_argv(spec)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--modl", "x"], "did you mean --model"),
        (["--model", "x", "--tens", "2"], "unknown argument --tens"),
        (["--model", "x", "--tp", "0"], "--tensor-parallel-size=0: should be greater than or equal to 1"),
        (["--model", "x", "--tp", "two"], "--tensor-parallel-size=two: should be a valid integer"),
        (["--model", "x", "--dtype", "float8"], "'auto', 'float16', 'bfloat16' or 'float32'"),
        (["--model", "x", "--attn", "fa4"], "use one of auto, torch, fa, fa3, fi"),
        (["--model", "x", "--num-pages=4", "--num-tokens=64"], "give one of them"),
        (["--model", "x", "--memory-ratio", "nan"], "--memory-ratio=nan"),
        ([], "--model-path is missing"),
    ],
)
def test_a_wrong_command_line_gets_a_sentence_with_the_mend(argv: list[str], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_args(argv)
    assert sentence in str(caught.value)


def test_an_unknown_key_of_a_spec_names_the_closest_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'numPages'"):
        to_argv({"numPagse": 4})
    with pytest.raises(UsageError, match="unknown launch argument"):
        validate({"model_path": "x", "nothing": 1})


# Every flag and alias that users of mini-sglang and of this project's first description know, with its default.
LEGACY = {
    "model_path": (["--model-path", "--model"], None),
    "dtype": (["--dtype", "--precision"], "auto"),
    "tensor_parallel_size": (["--tensor-parallel-size", "--tp-size", "--tp"], 1),
    "max_running_requests": (["--max-running-requests"], 256),
    "max_seq_len_override": (["--max-seq-len-override"], None),
    "memory_ratio": (["--memory-ratio"], 0.9),
    "dummy_weight": (["--dummy-weight"], False),
    "disable_pynccl": (["--disable-pynccl"], False),
    "host": (["--host"], "127.0.0.1"),
    "port": (["--port"], 1919),
    "cuda_graph_max_bs": (["--cuda-graph-max-bs", "--graph"], None),
    "num_tokenizer": (["--num-tokenizer", "--tokenizer-count"], 0),
    "max_prefill_length": (["--max-prefill-length", "--max-extend-length"], 8192),
    "num_pages": (["--num-pages"], None),
    "num_tokens": (["--num-tokens"], None),
    "attention_backend": (["--attention-backend", "--attn"], "auto"),
    "cache_type": (["--cache-type", "--cache"], "radix"),
    "shell_mode": (["--shell-mode", "--shell"], False),
    "silent_output": (["--silent-output"], False),
}


@pytest.mark.parametrize("field", LEGACY)
def test_every_flag_of_the_list_is_there_with_its_aliases_and_default(field: str) -> None:
    names, default = LEGACY[field]
    action = next(action for action in build_parser()._actions if action.dest == field)
    assert list(action.option_strings) == names
    if field != "model_path":
        assert LaunchArgs.model_fields[field].default == default


def test_the_runtime_schema_is_structural_and_leaves_out_what_the_operator_decides() -> None:
    properties = runtime_schema()["properties"]
    assert not {"modelPath", "host", "port", "device", "shellMode"} & properties.keys()
    for name, schema in properties.items():
        assert schema["description"], name
        assert "default" not in schema, name
        assert "anyOf" not in schema, name


def test_the_table_has_a_row_for_every_argument() -> None:
    assert len(table().splitlines()) == 2 + len(flags())
