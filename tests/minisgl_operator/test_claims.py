"""Can so many pods share a claim? Access modes x replicas x surge."""

from typing import Any

import pytest

from minisgl_operator.api import Spec
from minisgl_operator.build.claims import claims_of, judge_claims
from minisgl_operator.errors import SpecError
from minisgl_operator.objects import Child
from support.cluster_objects import a_spec, build_children
from support.stage import Stage

WHERE: dict[str, dict[str, Any]] = {
    "spec.model.source": {"model": {"source": "pvc://shared/folder"}},
    "spec.cache.claim": {"model": {"source": "hf://org/name"}, "cache": {"claim": "shared"}},
    "spec.cache.jitClaim": {"model": {"source": "s3://bucket"}, "cache": {"jitClaim": "shared"}},
}


def judge(*modes: str, replicas: int = 1, surge: int | str = 0, fields: dict[str, Any] | None = None) -> str:
    given = a_spec() | (WHERE["spec.model.source"] if fields is None else fields) | {"replicas": replicas}
    deployment = build_children(**given)[Child.DEPLOYMENT]
    deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"] = surge
    return judge_claims(Spec.model_validate(given), deployment, {"shared": {"spec": {"accessModes": modes}}})


@pytest.mark.parametrize(("field", "fields"), WHERE.items(), ids=WHERE)
def test_every_claim_of_the_pods_is_known_with_its_field(field: str, fields: dict[str, Any]) -> None:
    assert claims_of(Spec.model_validate(fields)) == {"shared": field}
    with pytest.raises(SpecError, match=f"^{field}: claim shared is ReadWriteOncePod"):
        judge("ReadWriteOncePod", replicas=2, fields=fields)


@pytest.mark.parametrize(
    ("replicas", "surge", "said"),
    [
        (2, 0, "there would be 2 replicas;"),
        (1, 1, "1 replica and 1 more during a rollout"),
        (1, "1%", "1 replica and 1 more during a rollout"),
        (3, "34%", "3 replicas and 2 more during a rollout"),
    ],
)
def test_a_claim_for_one_pod_is_refused_for_more_with_the_way_out(replicas: int, surge: int | str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        judge("ReadWriteOncePod", replicas=replicas, surge=surge)
    text = str(caught.value)
    assert said in text
    assert "ReadWriteMany" in text
    assert "replicas to 1, rollout.maxSurge to 0" in text


@pytest.mark.parametrize(("replicas", "surge"), [(1, 0), (0, 1), (0, "100%"), (1, "0%")])
def test_a_claim_for_one_pod_serves_one_pod(replicas: int, surge: int | str) -> None:
    assert judge("ReadWriteOncePod", replicas=replicas, surge=surge) == ""


def test_a_claim_for_one_node_is_a_hint_as_it_may_work() -> None:
    assert judge("ReadWriteOnce") == ""
    hint = judge("ReadWriteOnce", replicas=2)
    assert "claim shared of spec.model.source is ReadWriteOnce: 2 replicas must all find room on one node" in hint
    assert "1 more during a rollout" in judge("ReadWriteOnce", surge=1)


@pytest.mark.parametrize("modes", [("ReadOnlyMany",), ("ReadWriteMany",), ("ReadWriteOnce", "ReadOnlyMany"), ()])
def test_a_claim_for_many_nodes_is_never_in_the_way(modes: tuple[str, ...]) -> None:
    assert judge(*modes, replicas=5, surge=5) == ""


def test_a_claim_that_is_not_there_is_left_to_the_scheduler() -> None:
    spec = a_spec() | WHERE["spec.model.source"] | {"replicas": 9}
    assert judge_claims(Spec.model_validate(spec), build_children(**spec)[Child.DEPLOYMENT], {}) == ""


def is_settled(stage: Stage) -> bool:
    """Whether a look on paper, where no claim is known, finds nothing to do."""
    return bool(stage.run(stage.reconciler.is_settled(stage.key, stage.run(stage.cluster.snapshot()))))


def test_a_claim_for_one_pod_stalls_a_model_of_two_and_a_better_claim_mends_it() -> None:
    stage = Stage(replicas=2)
    stage.cluster.create_claim("models", "ReadWriteOncePod")
    stage.reconcile()
    assert stage.reason == "InvalidSpec"
    assert "claim models is ReadWriteOncePod" in stage.ready["message"]
    assert (Child.DEPLOYMENT.plural, *stage.key) not in stage.cluster.objects
    assert not is_settled(stage)
    stage.cluster.create_claim("models", "ReadWriteMany")
    stage.serve()


def test_a_model_that_serves_from_a_claim_for_one_pod_is_settled_until_a_second_pod_is_wanted() -> None:
    stage = Stage(rollout={"maxSurge": 0, "maxUnavailable": 1})
    stage.cluster.create_claim("models", "ReadWriteOncePod")
    stage.serve()
    assert is_settled(stage)
    stage.cluster.edit_model(stage.key, replicas=2)
    stage.reconcile()
    assert stage.reason == "InvalidSpec"
    assert not is_settled(stage)


def test_a_claim_for_one_node_is_named_while_pods_wait_and_not_when_they_serve() -> None:
    stage = Stage(replicas=2)
    stage.cluster.create_claim("models", "ReadWriteOnce")
    stage.reconcile()
    assert stage.reason == "Starting"
    assert "claim models of spec.model.source is ReadWriteOnce" in stage.ready["message"]
    assert not is_settled(stage)  # it knows no claim, and what it cannot tell wants a real look
    stage.serve()
    assert "ReadWriteOnce" not in stage.ready["message"]
    assert is_settled(stage)
    stage.reconcile()
    assert stage.cluster.writes == []
