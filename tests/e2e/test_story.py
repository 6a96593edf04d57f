"""What a person sees of one model's life, from creation over a bad image to mended: columns, events, status."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import pytest

from e2e import kube
from e2e.kube import Object
from e2e.specs import wanted

RUNTIME = {"dummyWeight": True, "numTokens": 1024}
NAME = "story"


@pytest.fixture
def story(model: Callable[..., str], tiny: str) -> str:
    return model(NAME, tiny, runtime=RUNTIME)


def row(*flags: str) -> dict[str, str]:
    """What `kubectl get msgl` says, by column: a cell stands below its header."""
    header, line = kube.kubectl("get", "msgl", NAME, *flags).rstrip("\n").splitlines()
    starts = [(header.index(name), name) for name in header.split()]
    ends = [start for start, _ in starts[1:]] + [len(line)]
    return {name: line[start:end].strip() for (start, name), end in zip(starts, ends, strict=True)}


def status() -> Object:
    found: Object = kube.get("msgl", NAME).get("status", {})
    return found


def reason_is(reason: str) -> bool:
    return kube.condition({"status": status()}, "Ready").get("reason") == reason


def loading() -> bool:
    """Whether a server on its way has said how far it is, or was too fast for it."""
    return any("loading" in pod for pod in status().get("pods", [])) or reason_is("Serving")


def events() -> list[tuple[str, str]]:
    """Reason and message of what was told of the model, in order."""
    selector = f"involvedObject.kind=MiniSGLModel,involvedObject.name={NAME}"
    items = kube.find("events", "--field-selector", selector)
    items.sort(key=lambda item: (item["firstTimestamp"], int(item["metadata"]["resourceVersion"])))
    return [(item["reason"], item["message"]) for item in items]


def test_a_models_life_reads_like_a_story(story: str, tiny: str) -> None:
    starting = kube.eventually("a pod on its way", lambda: status().get("pods"), within=60, about=story)
    assert starting[0]["pod"].startswith(story)
    kube.eventually("its progress", lambda: row()["PROGRESS"], within=30, about=story)
    kube.eventually("what its server says", loading, within=180, about=story)

    kube.wait_until(story, within=240)
    seen = row()
    assert (seen["READY"], seen["REPLICAS"], seen["REASON"], seen["PROGRESS"]) == ("True", "1/1", "Serving", "")
    kube.eventually("what runs", lambda: status().get("engine"), about=story)
    told = status()
    assert "pods" not in told
    steps = [told["startup"][step] for step in ("created", "scheduled", "prepared", "started", "ready")]
    assert steps == sorted(steps)
    assert told["engine"]["modelRevision"].startswith("sha256:")
    assert "--dummy-weight" in told["launched"]["args"]
    wide = row("--output", "wide")
    assert (wide["REVISION"], wide["IMAGE"]) == (told["engine"]["modelRevision"], told["launched"]["image"])

    kube.apply(wanted(NAME, tiny, runtime=RUNTIME, image="registry.invalid/no-such-image:1", imagePullPolicy="Always"))
    kube.eventually("the bad image is told", partial(reason_is, "ImagePullFailed"), within=60, about=story)
    assert row()["READY"] == "False"
    message = kube.condition({"status": status()}, "Ready")["message"]
    assert "registry.invalid/no-such-image:1" in message
    assert "; check the name" in message

    kube.apply(wanted(NAME, tiny, runtime=RUNTIME))  # takes away what the file no longer has
    kube.wait_until(story)
    told_events = events()
    reasons = [reason for reason, _ in told_events]
    assert reasons[-1] == "Serving"
    assert is_told_in_order(["Starting", "Serving", "ImagePullFailed", "Serving"], reasons), reasons
    assert all(one != two for one, two in itertools.pairwise(reasons)), reasons
    described = kube.kubectl("describe", "msgl", NAME)
    for reason, words in told_events:
        assert reason in described
        assert words[:40] in described


def is_told_in_order(chapters: list[str], told: list[str]) -> bool:
    """Whether the chapters come in this order, whatever stands between them."""
    rest = iter(told)
    return all(chapter in rest for chapter in chapters)
