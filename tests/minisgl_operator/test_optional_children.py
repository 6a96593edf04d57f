"""Children that a spec asks for and takes back, kinds that a cluster may lack, and a model that is paused."""

import pytest

from minisgl_operator import errors
from minisgl_operator.objects import Child, Object
from support.stage import Stage

MONITORED = {"enabled": True}


def writes(stage: Stage) -> list[tuple[str, str]]:
    """What was written since the last look, status aside."""
    found = [each for each in stage.cluster.writes if each[1] != "status"]
    stage.cluster.writes.clear()
    return found


@pytest.mark.parametrize(
    ("field", "on", "off", "plural"),
    [
        ("networkPolicy", {"enabled": True}, {"enabled": False}, "networkpolicies"),
        ("monitoring", {"enabled": True}, {"enabled": False}, "podmonitors"),
        ("monitoring", {"enabled": True}, {}, "podmonitors"),
    ],
)
def test_a_child_no_longer_asked_for_is_deleted_and_comes_back_when_asked_again(
    field: str, on: Object, off: Object, plural: str
) -> None:
    stage = Stage(**{field: on})
    stage.serve()
    stage.cluster.edit_model(stage.key, **{field: off})
    stage.reconcile()
    let_prometheus_in = [("patch", "networkpolicies")] if field == "monitoring" else []
    assert writes(stage) == [*let_prometheus_in, ("delete", plural)]
    stage.reconcile()
    assert writes(stage) == []
    stage.cluster.edit_model(stage.key, **{field: on})
    stage.reconcile()
    assert ("patch", plural) in writes(stage)
    assert stage.reason == "Serving"


def test_a_child_that_was_replaced_meanwhile_is_not_deleted() -> None:
    stage = Stage()
    stage.serve()
    path = (Child.NETWORK_POLICY.plural, *stage.key)
    stale = {"metadata": {**stage.cluster.objects[path]["metadata"], "uid": "older"}}
    with pytest.raises(errors.Conflict):
        stage.run(stage.cluster.delete(Child.NETWORK_POLICY, stale))
    assert path in stage.cluster.objects


def test_a_foreign_policy_of_that_name_is_left_alone_while_none_is_asked_for_and_a_conflict_when_one_is() -> None:
    stage = Stage(networkPolicy={"enabled": False})
    foreign = {"kind": "NetworkPolicy", "metadata": {"name": "smollm2", "namespace": "ns", "uid": "x"}, "spec": {}}
    stage.cluster.objects["networkpolicies", "ns", "smollm2"] = foreign
    stage.serve()
    stage.cluster.edit_model(stage.key, networkPolicy={})
    stage.reconcile()
    assert stage.reason == "NameConflict"
    assert "NetworkPolicy smollm2 exists" in stage.ready["message"]
    assert stage.cluster.objects["networkpolicies", "ns", "smollm2"] == foreign


def test_without_the_prometheus_operator_a_monitored_model_serves_and_says_that_none_is_made() -> None:
    stage = Stage(monitoring=MONITORED)
    stage.cluster.unknown_kinds.add(Child.POD_MONITOR)
    stage.serve()
    assert "knows no PodMonitor" in stage.ready["message"]
    stage.reconcile()
    assert writes(stage) == []
    stage.cluster.unknown_kinds.clear()
    stage.reconcile()
    assert writes(stage) == [("patch", "podmonitors")]
    assert "PodMonitor" not in stage.ready["message"]


def test_a_cluster_that_lacks_a_kind_we_need_is_an_error() -> None:
    stage = Stage()
    stage.cluster.unknown_kinds.add(Child.DEPLOYMENT)
    with pytest.raises(errors.UnknownKind):
        stage.reconcile()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"404 page not found\n", errors.UnknownKind),
        (b'{"kind": "Status", "message": "podmonitors \\"x\\" not found"}', errors.NotFound),
    ],
)
def test_a_missing_kind_is_told_from_a_missing_object(body: bytes, kind: type[errors.ApiError]) -> None:
    assert type(errors.api_error("get podmonitors", 404, body)) is kind


def test_a_paused_model_that_is_as_its_spec_says_stays_ready_and_says_paused() -> None:
    stage = Stage()
    stage.serve()
    stage.cluster.edit_model(stage.key, pause=True)
    stage.reconcile()
    assert writes(stage) == []
    assert (stage.reason, stage.ready["status"]) == ("Serving", "True")
    assert "paused" in stage.ready["message"]


def test_a_paused_model_whose_spec_changes_is_stalled_and_nothing_but_status_is_written() -> None:
    stage = Stage(monitoring=MONITORED)
    stage.serve()
    before = dict(stage.cluster.objects)
    stage.cluster.edit_model(stage.key, pause=True, runtime={"pageSize": 32}, monitoring={})
    for _ in range(3):
        stage.reconcile()
    assert [each for each in stage.cluster.writes if each[1] != "status"] == []
    assert len(stage.cluster.writes) == 1
    assert (stage.reason, stage.stalled["status"]) == ("Paused", "True")
    for kind in ("Deployment", "PodMonitor"):
        assert kind in stage.ready["message"]
    assert stage.cluster.objects.keys() == before.keys()
    stage.cluster.edit_model(stage.key, pause=False)
    stage.reconcile()
    assert "--page-size=32" in stage.args
    assert stage.reason != "Paused"


def test_what_is_deleted_by_hand_stays_away_while_paused() -> None:
    stage = Stage(pause=True)
    stage.reconcile()
    assert (stage.reason, writes(stage)) == ("Paused", [])
    stage.cluster.edit_model(stage.key, pause=False)
    stage.serve()
    stage.cluster.edit_model(stage.key, pause=True)
    stage.cluster.delete_by_hand(Child.SERVICE, stage.key)
    stage.reconcile()
    assert (stage.reason, writes(stage)) == ("Paused", [])
    assert "Service" in stage.ready["message"]


def test_pausing_changes_no_pod() -> None:
    stage = Stage()
    stage.serve()
    before = stage.child(Child.DEPLOYMENT)["metadata"]["annotations"].copy()
    stage.cluster.edit_model(stage.key, pause=True)
    stage.reconcile()
    stage.cluster.edit_model(stage.key, pause=False)
    stage.reconcile()
    assert stage.child(Child.DEPLOYMENT)["metadata"]["annotations"] == before
