"""Many models: nothing is written when nothing is to do, and one that is broken does not hold up the rest."""

from __future__ import annotations

import itertools

from control_plane.proxy import Call, Fault
from control_plane.stage import Stage

NAMES = [f"m-{number}" for number in range(20)]


def test_a_restart_and_a_resync_of_served_models_write_nothing(stage: Stage) -> None:
    stage.start()
    names = NAMES[:5]
    for name in names:
        stage.create(name)
    for name in names:
        stage.until_whole(name)
        stage.serve(name)
    for name in names:
        stage.until_reason(name, "Serving")
        stage.until("facts", lambda name=name: "engine" in stage.model(name)["status"])
    stage.operators[0].kill()
    stage.operators[0].wait()
    stage.proxy.forget()
    stage.start(resync_seconds=1)
    # Only a resync lists them: this server does not even know the kind.
    stage.until("three resyncs", lambda: stage.num_lists("podmonitors") >= 3)
    assert [f"{call.method} {call.path}" for call in stage.proxy.writes] == []
    assert stage.looks() == [], "models with which all is well are looked at on paper"


def test_a_poisoned_model_among_many_delays_nobody(stage: Stage) -> None:
    poison = stage.admin.path("models", stage.namespace, "poison")
    stage.proxy.rule = lambda call: Fault(status=500) if call.path == poison else None
    stage.create("poison")
    stage.start(workers=2)
    for name in NAMES:
        stage.create(name)
    for name in NAMES:
        stage.until_reason(name, "Starting")
    others = [call for call in stage.proxy.calls if call.number]
    assert len(others) >= 4 * len(NAMES)

    def tries() -> list[float]:
        return [call.at for call in list(stage.proxy.calls) if call.path == poison]

    stage.until("it is tried again and again", lambda: len(tries()) >= 4)
    pauses = [after - before for before, after in itertools.pairwise(tries())]
    assert min(pauses) > 0.3, f"it waits before it is tried again: {pauses}"
    stage.proxy.rule = lambda call: None
    stage.until_reason("poison", "Starting")


def test_a_missing_definition_is_waited_for(stage: Stage) -> None:
    def rule(call: Call) -> Fault | None:
        return Fault(status=404) if call.path.startswith("/apis/minisgl.io") else None

    stage.proxy.rule = rule
    operator = stage.start()
    stage.create("m")
    stage.until("it waits", lambda: any("apply manifests/crd.yaml" in line["message"] for line in operator.log()))
    stage.proxy.rule = lambda call: None
    stage.until_reason("m", "Starting")
