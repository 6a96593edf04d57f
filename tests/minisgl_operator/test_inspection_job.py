"""The Job that looks into a model: the model's own pod, small, and kept apart from those that serve."""

import json
from typing import Any

from minisgl_operator import api
from minisgl_operator.build.inspect import build_inspection
from minisgl_operator.objects import Child, Object
from support.cluster_objects import UID, build_children


def build(name: str = "smollm2", **fields: Any) -> Object:
    deployment = build_children(name, **fields)[Child.DEPLOYMENT]
    return build_inspection(api.Key("ns", name), UID, deployment)


def test_the_job_is_the_models_pod_without_what_serves() -> None:
    fields: dict[str, Any] = {"device": {"type": "cuda", "resourceName": "nvidia.com/gpu"}}
    pod_spec = {"nodeSelector": {"gpu": "h200"}, "tolerations": [{"operator": "Exists"}], "runtimeClassName": "nvidia"}
    fields["podTemplate"] = {"spec": pod_spec, "metadata": {"labels": {"team": "x"}}}
    model = build_children(**fields)[Child.DEPLOYMENT]["spec"]["template"]["spec"]
    job = build(**fields)
    template = job["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert container["args"] == ["inspect", "--model-path=/models/smollm2"]
    for name in ("nodeSelector", "tolerations", "runtimeClassName", "securityContext", "volumes", "serviceAccountName"):
        assert template["spec"][name] == model[name]
    assert container["securityContext"] == model["containers"][0]["securityContext"]
    assert "nvidia.com/gpu" not in json.dumps(container)
    assert not {"startupProbe", "livenessProbe", "readinessProbe", "ports", "lifecycle"} & container.keys()
    assert template["spec"]["restartPolicy"] == "Never"
    assert template["spec"]["automountServiceAccountToken"] is False


def test_its_pod_may_run_beside_the_models_pods_that_keep_apart() -> None:
    apart = {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname"}]}
    term = {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}
    nodes = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    elsewhere = {"source": "hf://org/name", "revision": "a" * 40}
    job = build(model=elsewhere, podTemplate={"spec": {"affinity": {"podAntiAffinity": apart, "nodeAffinity": nodes}}})
    assert job["spec"]["template"]["spec"]["affinity"] == {"nodeAffinity": nodes}
    job = build(model=elsewhere, podTemplate={"spec": {"affinity": {"podAntiAffinity": apart}}})
    assert "affinity" not in job["spec"]["template"]["spec"]


def test_its_pod_goes_where_the_models_pods_have_the_claim_if_there_is_room() -> None:
    job = build(podTemplate={"spec": {"affinity": {"podAntiAffinity": {}}}})
    affinity = job["spec"]["template"]["spec"]["affinity"]
    assert affinity.keys() == {"podAffinity"}
    ((preferred,),) = affinity["podAffinity"].values()
    assert preferred["podAffinityTerm"]["labelSelector"]["matchLabels"] == {api.MODEL_LABEL: "smollm2"}


def test_its_pod_neither_serves_nor_counts() -> None:
    job = build()
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert api.MODEL_LABEL not in labels
    assert labels[api.INSPECTS_LABEL] == "smollm2"
    assert job["metadata"]["labels"][api.MODEL_LABEL] == "smollm2", "the watch tells when it has ended"
    assert job["metadata"]["ownerReferences"][0]["uid"] == UID


def test_its_name_is_its_contents_and_fits_a_label() -> None:
    assert build() == build()
    names = {build(name)["metadata"]["name"] for name in ("a" * 52, "a" * 51, "m", "m-" * 25 + "m")}
    names.add(build("m", image="other")["metadata"]["name"])
    names.add(build("m", model={"source": "pvc://models/other"})["metadata"]["name"])
    assert len(names) == 6
    assert max(map(len, names)) <= 63
