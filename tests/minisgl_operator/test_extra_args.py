"""Flags for a newer runtime pass; flags that have a field, or that the operator decides, are refused with it."""

import re
from typing import Any

import pytest

from minisgl.args import flags
from minisgl.argv import spelling
from minisgl_operator.api.extra_args import find_conflict, item_rule, known_flags
from minisgl_operator.errors import SpecError
from minisgl_operator.objects import Child
from support.cluster_objects import build_children
from support.mistakes import refusal


def args(**fields: Any) -> list[str]:
    built = build_children(**fields)[Child.DEPLOYMENT]
    found: list[str] = built["spec"]["template"]["spec"]["containers"][0]["args"]
    return found


def test_unknown_flags_stand_behind_all_others_in_their_order() -> None:
    extra = ["--new-kernel=fast", "--another"]
    assert args(extraArgs=extra) == [*args(), *extra]


@pytest.mark.parametrize(
    ("flag", "mend"),
    [
        ("--tp", "spec.runtime.tensorParallelSize"),
        ("--tensor-parallel-size", "spec.runtime.tensorParallelSize"),
        ("--graph", "spec.runtime.cudaGraphMaxBs"),
        ("--model", "spec.model.source"),
        ("--served-model-name", "spec.model.servedName"),
        ("--device", "spec.device.type"),
        ("--port", "the operator decides it"),
        ("--api-key-file", "the operator decides it"),
        ("--help", "it prints and ends"),
    ],
)
@pytest.mark.parametrize("value", ["", "=2"])
def test_a_flag_that_has_a_place_is_refused_and_the_place_is_named(flag: str, mend: str, value: str) -> None:
    with pytest.raises(SpecError, match=rf"spec\.extraArgs\[1\]: {flag} may not be given here: .*{re.escape(mend)}"):
        args(extraArgs=["--fine", flag + value])


def test_every_flag_and_alias_of_this_runtime_is_known() -> None:
    for field, flag in flags().items():
        assert {spelling(field), *flag.aliases} <= known_flags().keys()


def test_the_api_server_is_told_the_same_flags() -> None:
    rule = item_rule()
    for flag, mend in known_flags().items():
        assert f"'{flag}': '{mend}'" in rule["rule"]
        assert f"'{flag}': '{mend}'" in rule["messageExpression"]
    assert "\n" not in rule["messageExpression"]


def test_a_flag_given_twice_is_refused() -> None:
    assert find_conflict(["--new=1", "--new=2"]) == "spec.extraArgs[1]: --new is given twice; give it once"
    assert find_conflict(["--new=1", "--newer"]) is None


@pytest.mark.parametrize("text", ["new", "-n", "--", "--New", "--a b", "--a=1\n--b", "; rm", "--=x"])
def test_what_is_no_flag_is_refused_at_apply(text: str) -> None:
    message = refusal({"model": {"source": "hf://a/b"}, "extraArgs": [text]})
    assert message is not None
    assert "extraArgs" in message
