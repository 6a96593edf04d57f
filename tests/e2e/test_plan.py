"""Whether a model fits is said before a pod of it exists, and what was planned stands beside what came true."""

from __future__ import annotations

import re
from collections.abc import Callable

from e2e import kube
from e2e.environment import RELEASE, SYSTEM
from e2e.kube import Object
from e2e.specs import REAL, wanted

RUNTIME = {"numTokens": 4096}


def limited(memory: str) -> Object:
    return {"runtime": RUNTIME, "resources": {"limits": {"memory": memory}}}


def jobs(name: str) -> list[str]:
    return kube.kubectl("get", "jobs", "--selector", f"minisgl.io/model={name}", "--output", "name").split()


def plan(name: str) -> Object:
    found: Object = kube.get("msgl", name)["status"]["plan"]
    return found


def has_real_figures(name: str) -> Object | None:
    found: Object = plan(name)["perRank"]
    return found if "real" in found["weightBytes"] else None


def test_what_does_not_fit_gets_no_pod_and_serves_when_the_limit_is_mended(model: Callable[..., str]) -> None:
    name = model("too-large", REAL, **limited("700Mi"))
    found = kube.wait_until(name, "Stalled", within=60)
    assert found["reason"] == "DoesNotFit"
    for part in (r"weights 621 MiB", r"KV cache of 256 tokens", r"of 700 MiB"):
        assert re.search(part, found["message"]), found["message"]
    assert not kube.exists("deployment", name), "no pod of the model was ever asked for"
    assert kube.pods(name) == []
    least = re.search(r"set spec.resources.limits.memory to (\d+Mi)", found["message"])
    assert least is not None, found["message"]

    kube.apply(wanted(name, REAL, **limited(least[1])))
    kube.wait_until(name, within=180)
    figures: Object = kube.eventually("real figures", lambda: has_real_figures(name), within=30, about=name)
    assert plan(name)["fits"] is True
    for each in ("weightBytes", "kvBytesPerToken"):
        planned, real = figures[each]["planned"], figures[each]["real"]
        assert abs(planned - real) <= 0.03 * real, (each, figures[each])


def test_a_model_is_asked_once_whatever_restarts(model: Callable[..., str], tiny: str) -> None:
    name = model("asked-once", tiny, runtime=RUNTIME | {"dummyWeight": True}, replicas=0)
    kube.wait_until(name, within=60)
    before = plan(name)
    assert before["model"]["numHeads"] == 8
    first = jobs(name)
    assert len(first) <= 1
    kube.kubectl("rollout", "restart", f"deployment/{RELEASE}", "--namespace", SYSTEM)
    kube.kubectl("rollout", "status", f"deployment/{RELEASE}", "--namespace", SYSTEM, timeout=120)
    kube.apply(wanted(name, tiny, runtime=RUNTIME | {"dummyWeight": True, "pageSize": 32}, replicas=0))
    kube.wait_until(name, within=60)
    assert set(jobs(name)) <= set(first), "the same model with other arguments"
    assert plan(name)["model"] == before["model"]


def test_ranks_that_do_not_divide_the_heads_are_refused_without_a_pod(model: Callable[..., str], tiny: str) -> None:
    name = model("three-ranks", tiny, runtime=RUNTIME | {"dummyWeight": True, "tensorParallelSize": 3})
    found = kube.wait_until(name, "Stalled", within=60)
    assert found["reason"] == "InvalidArguments"
    assert "sizes that work: 1, 2, 4, 8" in found["message"]
    assert not kube.exists("deployment", name)
