"""`spec.extraArgs`: flags of a runtime newer than this operator. Flags that this operator knows are refused.

A known flag has a field, which is checked at apply and shown in status; given here it would be set twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, StringConstraints
from pydantic.alias_generators import to_camel

from minisgl.args import flags
from minisgl.argv import PRINTING, spelling

PATTERN = r"^--[a-z0-9][-a-z0-9]*(=[^\r\n]*)?$"
ELSEWHERE = {
    "model_path": "set spec.model.source",
    "served_model_name": "set spec.model.servedName",
    "device": "set spec.device.type",
}
DECIDED = "the operator decides it"


def known_flags() -> dict[str, str]:
    """Flag or alias that may not be given -> what to do in its place."""
    known: dict[str, str] = {}
    for field, flag in flags().items():
        mend = ELSEWHERE.get(field, DECIDED) if flag.cli_only else f"set spec.runtime.{to_camel(field)}"
        known |= dict.fromkeys((spelling(field), *flag.aliases), mend)
    return known | dict.fromkeys(PRINTING, "it prints and ends")


def find_conflict(extra: Sequence[str]) -> str | None:
    """The sentence for the first argument that may not be given, or None."""
    if not extra:
        return None
    known = known_flags()
    names = [token.partition("=")[0] for token in extra]
    for position, name in enumerate(names):
        if name in known:
            return f"spec.extraArgs[{position}]: {name} may not be given here: {known[name]}"
        if name in names[:position]:
            return f"spec.extraArgs[{position}]: {name} is given twice; give it once"
    return None


def item_rule() -> dict[str, Any]:
    """The same for the API server, as a CEL rule over one item."""
    known = "{" + ", ".join(f"'{name}': '{mend}'" for name, mend in known_flags().items()) + "}"
    name = "self.split('=')[0]"
    return {
        "rule": f"!({name} in {known})",
        "message": "a flag that this operator knows may not be given in spec.extraArgs; set its field",
        "messageExpression": f"{name} + ' may not be given here: ' + {known}[{name}]",
    }


def list_rule() -> dict[str, Any]:
    """No flag twice, as a CEL rule over the list."""
    return {
        "rule": "self.all(a, self.exists_one(b, a.split('=')[0] == b.split('=')[0]))",
        "message": "spec.extraArgs gives a flag twice; give it once",
    }


ExtraArgs = Annotated[
    list[
        Annotated[
            str,
            StringConstraints(max_length=1024, pattern=PATTERN),
            Field(json_schema_extra={"x-kubernetes-validations": [item_rule()]}),
        ]
    ],
    Field(max_length=32, json_schema_extra={"x-kubernetes-validations": [list_rule()]}),
]
