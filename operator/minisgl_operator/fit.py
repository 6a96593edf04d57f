"""Does a model fit, before a pod of it exists? Pure: a spec and the shape of its model become a plan and a verdict.

The memory of a device is judged only where the spec tells it; the arithmetic is the engine's own (`minisgl.plan`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic.alias_generators import to_camel

from minisgl import termination
from minisgl.args import LaunchArgs
from minisgl.errors import StartError, UsageError
from minisgl.info import Figure
from minisgl.plan.device import MEMORY_LABEL, MIB, PRODUCT_LABEL, gpu_bytes, read_quantity
from minisgl.plan.inspection import Inspection
from minisgl.plan.outlook import Outlook, explain, predict, size, smallest_change
from minisgl_operator.api import Key, Spec
from minisgl_operator.api.plan import PerRank
from minisgl_operator.build.launch import build_launch
from minisgl_operator.objects import Object
from minisgl_operator.reasons import Finding

MIG = "/mig-"  # in the name of a resource: nvidia.com/mig-1g.10gb
STEP = 64 * MIB  # a proposed amount of memory is a multiple of it


@dataclass(frozen=True)
class Known:
    """Memory of one GPU, or of the container on a CPU, and the field that tells it."""

    num_bytes: int
    field: str


def known_memory(spec: Spec) -> Known | None:
    """What the spec tells of the device's memory; None if nothing, or nothing that is understood."""
    device, labels = spec.device, spec.pod_template.spec.node_selector
    if device.type == "cpu":
        return _amount(spec.resources.limits.get("memory"), "resources.limits.memory")
    if device.memory is not None:
        return _amount(device.memory, "device.memory")
    if MIG in device.resource_name:
        return None  # a part of a GPU, while kind and labels may be those of the whole
    if device.gpu is not None:
        return _gpu(device.gpu, "device.gpu")
    if (mib := labels.get(MEMORY_LABEL, "")).isdigit():
        return _amount(f"{mib}Mi", f"podTemplate.spec.nodeSelector {MEMORY_LABEL}")
    return _gpu(labels.get(PRODUCT_LABEL, ""), f"podTemplate.spec.nodeSelector {PRODUCT_LABEL}")


def foresee(key: Key, spec: Spec, model: Inspection) -> tuple[Object, Finding | None]:
    """The fields of `status.plan` that follow from the spec, and what forbids to make a pod, if anything does.

    Raises SpecError for a spec that cannot become pods.
    """
    args = build_launch(key, spec, "model").args
    memory = known_memory(spec)
    try:
        outlook = predict(args, model.model(), spec.device.type, None if memory is None else memory.num_bytes)
    except (UsageError, StartError) as error:
        reason = termination.Reason.INVALID_ARGUMENTS
        return {}, Finding(reason, str(error), reason.hint, stalled=True)
    taken = outlook.need
    tokens = None if outlook.tokens is None else Figure(planned=outlook.tokens)
    per_rank = PerRank(
        weight_bytes=Figure(planned=taken.weights),
        kv_bytes_per_token=Figure(planned=outlook.config.token_bytes),
        activation_bytes=Figure(planned=taken.activations),
        graph_bytes=Figure(planned=taken.graphs),
        cache_tokens=tokens,
    )
    told: Object = {
        "leastMemoryBytes": outlook.least_memory,
        "perRank": per_rank.model_dump(by_alias=True, exclude_none=True),
    }
    if memory is None:
        return told, None
    told |= {"memoryBytes": memory.num_bytes, "memoryFrom": memory.field, "fits": bool(outlook.fits)}
    return told, None if outlook.fits else _too_large(args, outlook, memory, model)


def beside(plan: Object, engine: Object | None) -> Object:
    """The plan with what the engine found (`status.engine`) beside each figure."""
    found: dict[str, Any] = (engine or {}).get("memory") or {}
    if not found or "perRank" not in plan:
        return plan
    figures = {
        name: figure | ({"real": found[name]["real"]} if "real" in found.get(name, {}) else {})
        for name, figure in plan["perRank"].items()
    }
    return plan | {"perRank": figures}


def _too_large(args: LaunchArgs, outlook: Outlook, memory: Known, model: Inspection) -> Finding:
    change = smallest_change(args, model.model(), outlook.config.device, memory.num_bytes)
    least = -(-outlook.least_memory // STEP) * STEP
    if outlook.config.device == "cpu":
        action = f"set spec.{memory.field} to {least // MIB}Mi or more"
    else:
        action = f"use GPUs of {size(least)} or more"
    if change is not None:
        action = f"set spec.runtime.{to_camel(change.field)} to {change.value}, or {action}"
    reason = termination.Reason.DOES_NOT_FIT
    return Finding(reason, f"{explain(outlook)} ({memory.field})", action, stalled=True)


def _amount(text: int | str | None, field: str) -> Known | None:
    try:
        return None if text is None else Known(read_quantity(text), field)
    except UsageError:
        return None


def _gpu(name: str, field: str) -> Known | None:
    known = gpu_bytes(name)
    return None if known is None else Known(known, field)
