"""Launch arguments survive the way to a command line and back, and wrong ones get a sentence."""

import re
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic.alias_generators import to_camel

from minisgl.args import LaunchArgs, flags
from minisgl.argv import GROUPS, PRINTING, build_parser, parse_args, spelling, to_argv, validate
from minisgl.bench.options import OPTIONS
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
        lambda spec: (
            not ("num_pages" in spec and "num_tokens" in spec)
            and not (spec.get("shell_mode") and spec.get("dummy_weight"))
        )
    )


@given(specs())
def test_arguments_survive_the_command_line_and_back(spec: dict[str, Any]) -> None:
    assert parse_args(to_argv(spec)) == LaunchArgs(**spec).resolved()


@given(specs())
def test_camel_case_keys_give_the_same_command_line(spec: dict[str, Any]) -> None:
    assert to_argv({to_camel(name): value for name, value in reversed(spec.items())}) == to_argv(spec)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--modl", "x"], "unknown argument --modl; did you mean --model?"),
        (["--model", "x", "--tp-sise", "2"], "unknown argument --tp-sise; did you mean --tp-size?"),
        (["--model", "x", "--tp_size=2"], "unknown argument --tp_size; did you mean --tp-size?"),
        (["--model", "x", "-tp", "2"], "unknown argument -tp; did you mean --tp?"),
        (["--model", "x", "-host", "::"], "unknown argument -host; did you mean --host?"),
        (["--model", "x", "--print-arg"], "did you mean --print-args?"),
        (["--model", "x", "--tens", "2"], "unknown argument --tens"),
        (["org/name"], "org/name belongs to no flag; did you mean --model-path org/name?"),
        (["--model", "x", "y"], "y belongs to no flag; see python -m minisgl --help"),
        (["--model", "x", "--silent-output=true"], "--silent-output is a switch; give it without a value"),
        (["--model", "--tp", "2"], "--model-path/--model: expected one argument"),
        (["--model", "x", "--tp", "-1"], "--tensor-parallel-size=-1: should be greater"),
        (["--model", "x", "--tp", "0"], "--tensor-parallel-size=0: should be greater than or equal to 1"),
        (["--model", "x", "--tp", "two"], "--tensor-parallel-size=two: should be a valid integer"),
        (["--model", "x", "--dtype", "float8"], "'auto', 'float16', 'bfloat16' or 'float32'"),
        (
            ["--model", "x", "--attn", "fa4"],
            "--attention-backend=fa4: should be one of auto, torch, native, fa, fa3, fi, or two",
        ),
        (["--model", "x", "--attn", "fa,fi,fa"], "or two of them as prefill,decode"),
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


# Every flag and alias that users of mini-sglang and of this project's first description know: its default, and another
# value that must arrive.
LEGACY: dict[str, tuple[list[str], Any, Any]] = {
    "model_path": (["--model-path", "--model"], None, "org/name"),
    "dtype": (["--dtype", "--precision"], "auto", "bfloat16"),
    "tensor_parallel_size": (["--tensor-parallel-size", "--tp-size", "--tp"], 1, 4),
    "max_running_requests": (["--max-running-requests"], 256, 8),
    "max_seq_len_override": (["--max-seq-len-override"], None, 512),
    "memory_ratio": (["--memory-ratio"], 0.9, 0.85),
    "dummy_weight": (["--dummy-weight"], False, True),
    "disable_pynccl": (["--disable-pynccl"], False, True),
    "host": (["--host"], "127.0.0.1", "0.0.0.0"),
    "port": (["--port"], 1919, 30000),
    "cuda_graph_max_bs": (["--cuda-graph-max-bs", "--graph"], None, 0),
    "num_tokenizer": (["--num-tokenizer", "--tokenizer-count"], 0, 2),
    "max_prefill_length": (["--max-prefill-length", "--max-extend-length"], 4096, 2048),
    "num_pages": (["--num-pages"], None, 100000),
    "num_tokens": (["--num-tokens"], None, 4096),
    "page_size": (["--page-size"], 16, 1),
    "attention_backend": (["--attention-backend", "--attn"], "auto", "fa3,fi"),
    "cache_type": (["--cache-type", "--cache"], "radix", "naive"),
    "shell_mode": (["--shell-mode", "--shell"], False, True),
    "silent_output": (["--silent-output"], False, True),
    "device": (["--device"], "auto", "cpu"),
    "served_model_name": (["--served-model-name"], None, "m"),
    "api_key_file": (["--api-key-file"], None, "/keys"),
    "max_queued_requests": (["--max-queued-requests"], 1024, 4),
    "max_body_bytes": (["--max-body-bytes"], 8 * 2**20, 4096),
    "drain_delay_seconds": (["--drain-delay-seconds"], 0, 5),
    "drain_timeout_seconds": (["--drain-timeout-seconds"], 30, 5),
    "watchdog_timeout_seconds": (["--watchdog-timeout-seconds"], 60, 5),
}


@pytest.mark.parametrize(("field", "name"), [(field, name) for field in LEGACY for name in LEGACY[field][0]])
def test_every_flag_of_the_list_works_under_each_of_its_names(field: str, name: str) -> None:
    names, default, other = LEGACY[field]
    action = next(action for action in build_parser()._actions if action.dest == field)
    assert list(action.option_strings) == names
    if field != "model_path":
        assert getattr(parse_args(["--model", "m"]), field) == default
    for argv in [[name]] if other is True else [[name, str(other)], [f"{name}={other}"]]:
        assert getattr(parse_args(["--model", "m", *argv]), field) == other


@pytest.mark.parametrize("names", ["auto", "torch", "fa", "fa3", "fi", "fa3,fi", "fa,torch", "auto,auto"])
def test_an_attention_backend_is_one_name_or_one_for_prefill_and_one_for_decode(names: str) -> None:
    assert parse_args(["--model=m", "--attn", names]).attention_backend == names


def test_no_flag_can_be_abbreviated() -> None:
    names = {name for action in build_parser()._actions for name in action.option_strings}
    for name in names:
        for end in range(3, len(name)):
            if name[:end] not in names:
                with pytest.raises(UsageError, match="unknown argument"):
                    parse_args(["--model=m", name[:end]])


@pytest.mark.parametrize("flag", ["--shell", "--shell-mode"])
@pytest.mark.parametrize("explicit", [[], ["--max-running-requests=8", "--graph=0"]])
def test_the_shell_forces_one_request_and_silence_over_what_was_said(flag: str, explicit: list[str]) -> None:
    args = parse_args(["--model=m", flag, *explicit])
    assert (args.max_running_requests, args.cuda_graph_max_bs, args.silent_output) == (1, 1, True)


def test_the_shell_refuses_random_weights() -> None:
    with pytest.raises(UsageError, match=r"--shell-mode with --dummy-weight.*leave one of them out"):
        parse_args(["--model=m", "--shell", "--dummy-weight"])


EXAMPLES = [
    "--model-path Qwen/Qwen3-0.6B --host 0.0.0.0 --port 1919",
    "--model-path meta-llama/Llama-3.1-70B-Instruct --tp 4 --port 30000",
    "--model-path Qwen/Qwen3-0.6B --shell",
    "--model-path Qwen/Qwen3-32B --tp 4 --cache-type radix --num-pages 100000 --memory-ratio 0.85",
    "--model-path Qwen/Qwen3-32B --attn fa3,fi --cuda-graph-max-bs 8",
    "--model-path Qwen/Qwen3-0.6B --dummy-weight",
]


@pytest.mark.parametrize("line", EXAMPLES)
def test_the_examples_that_users_start_with_are_understood(line: str) -> None:
    words = line.split()
    args = parse_args(words)
    assert args.model_path == words[1]


def test_help_is_grouped_and_teaches() -> None:
    text = build_parser().format_help()
    for field, flag in flags().items():
        assert spelling(field) in text
        assert flag.group in GROUPS
    for name in PRINTING:
        assert name in text
    assert max(len(line) for line in text.splitlines()) <= 120
    examples = text.partition("examples:\n")[2].partition("\n\n")[0].splitlines()
    assert len(examples) >= 4
    for line in examples:
        assert parse_args(re.split(r"  +", line.strip())[0].split()[3:])
    advice = text.partition("what to try first:\n")[2]
    known = {name for action in build_parser()._actions for name in action.option_strings}
    assert set(re.findall(r"--[a-z-]+", advice)) <= known


def test_the_runtime_schema_is_structural_and_leaves_out_what_the_operator_decides() -> None:
    properties = runtime_schema()["properties"]
    assert not {"modelPath", "host", "port", "device", "shellMode"} & properties.keys()
    for name, schema in properties.items():
        assert schema["description"], name
        assert "default" not in schema, name
        assert "anyOf" not in schema, name


def test_the_table_has_a_row_for_every_argument() -> None:
    assert len(table().splitlines()) == 2 + len(flags())


def test_the_runtimes_pages_name_only_flags_that_exist() -> None:
    pages = [Path(__file__).parents[2] / "runtime" / name for name in ("README.md", "START.md", "HTTP.md", "TOOLS.md")]
    text = "".join(page.read_text() for page in pages)
    known = {name for action in build_parser()._actions for name in action.option_strings}
    known |= {option.flag for options in OPTIONS.values() for option in options}
    named = set(re.findall(r"(?<![-\w])--[a-z][a-z-]+", text))
    assert named - known == {"--tp-sise"}  # the example of a wrong one
