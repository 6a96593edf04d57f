"""Only what we want is compared, and only what is ours is touched."""

import copy
from collections.abc import Callable

import pytest

from minisgl_operator.api import Key
from minisgl_operator.drift import check_owners, differs
from minisgl_operator.errors import Leftover, NameTaken
from minisgl_operator.objects import Child, Object
from support.cluster_objects import a_model, build_children

KEY = Key("ns", "smollm2")
RESOURCES = {"requests": {"cpu": "0.5", "memory": "1024Mi"}, "limits": {"memory": "2e9"}}


def wanted() -> Object:
    return build_children(resources=RESOURCES)[Child.DEPLOYMENT]


def container(deployment: Object) -> Object:
    found: Object = deployment["spec"]["template"]["spec"]["containers"][0]
    return found


def stored() -> Object:
    """What the API server makes of it: defaults added, quantities in its own spelling."""
    body = copy.deepcopy(wanted())
    body["metadata"] |= {"uid": "u", "generation": 1}
    body["spec"]["template"]["spec"] |= {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst"}
    container(body)["ports"][0]["name"] = "http"
    container(body)["startupProbe"]["successThreshold"] = 1
    container(body)["resources"] = {
        "requests": {"cpu": "500m", "memory": "1Gi"},
        "limits": {"memory": "2G"},
    }
    return body


def test_defaults_and_other_spellings_of_quantities_are_no_drift() -> None:
    assert not differs(wanted(), stored())


def test_defaults_inside_init_containers_and_lists_without_keys_are_no_drift() -> None:
    spread = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
    template = {"spec": {"topologySpreadConstraints": [spread]}}
    body = build_children(device={"type": "cuda"}, podTemplate=template)[Child.DEPLOYMENT]
    kept = copy.deepcopy(body)
    pod = kept["spec"]["template"]["spec"]
    pod["initContainers"][0] |= {"terminationMessagePath": "/dev/termination-log"}
    pod["topologySpreadConstraints"][0]["nodeTaintsPolicy"] = "Ignore"
    assert not differs(body, kept)
    pod["topologySpreadConstraints"][0]["maxSkew"] = 2
    assert differs(body, kept)
    pod["topologySpreadConstraints"] = []
    assert differs(body, kept)


def test_empty_values_that_the_api_server_does_not_store_are_no_drift() -> None:
    term = {"topologyKey": "zone", "namespaces": [], "labelSelector": {"matchLabels": {}}}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    env = {"name": "minisgl", "env": [{"name": "EMPTY", "value": ""}]}
    tolerations = [{"key": "gpu", "operator": "Equal", "value": ""}]
    template = {"spec": {"affinity": affinity, "tolerations": tolerations, "containers": [env]}}
    body = build_children(podTemplate=template)[Child.DEPLOYMENT]
    kept = copy.deepcopy(body)
    pod = kept["spec"]["template"]["spec"]
    del container(kept)["env"][-1]["value"]
    del pod["tolerations"][0]["value"]
    [stored_term] = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    del stored_term["namespaces"], stored_term["labelSelector"]["matchLabels"]
    assert not differs(body, kept)
    container(kept)["env"][-1]["value"] = "set by hand"
    assert differs(body, kept)


def test_a_folder_that_became_another_kind_of_volume_is_drift() -> None:
    body = stored()
    volume = body["spec"]["template"]["spec"]["volumes"][0]
    assert volume.pop("emptyDir") == {}
    volume["hostPath"] = {"path": "/"}
    assert differs(wanted(), body)


def test_another_spelling_of_a_caches_limit_is_no_drift() -> None:
    body = build_children(cache={"sizeLimit": "1024Mi"})[Child.DEPLOYMENT]
    kept = copy.deepcopy(body)
    limited = next(volume for volume in kept["spec"]["template"]["spec"]["volumes"] if volume["name"] == "cache")
    limited["emptyDir"]["sizeLimit"] = "1Gi"
    assert not differs(body, kept)
    limited["emptyDir"]["sizeLimit"] = "2Gi"
    assert differs(body, kept)


OPENED: dict[str, Callable[[Object], object]] = {
    "a port": lambda spec: spec["egress"][0]["ports"].append({"protocol": "TCP", "port": 22}),
    "all namespaces": lambda spec: spec["ingress"][0]["from"][0].update(namespaceSelector={}),
    "a range beside": lambda spec: spec["ingress"][0]["from"].append({"ipBlock": {"cidr": "0.0.0.0/0"}}),
    "a rule": lambda spec: spec["egress"].append({}),
}


@pytest.mark.parametrize("opening", OPENED.values(), ids=OPENED)
def test_a_network_policy_that_was_opened_by_hand_is_drift(opening: Callable[[Object], object]) -> None:
    peers = [{"podSelector": {"matchLabels": {}}}]
    body = build_children(networkPolicy={"from": peers})[Child.NETWORK_POLICY]
    kept = copy.deepcopy(body)
    del kept["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
    assert not differs(body, kept)
    opening(kept["spec"])
    assert differs(body, kept)


HARMLESS: dict[str, Callable[[Object], object]] = {
    "kubectl rollout restart": lambda body: body["spec"]["template"]["metadata"]["annotations"].update(restartedAt="x"),
    "a sidecar": lambda body: body["spec"]["template"]["spec"]["containers"].append({"name": "proxy"}),
    "an extra environment variable": lambda body: container(body)["env"].append({"name": "X", "value": "y"}),
    "a label of somebody else": lambda body: body["metadata"]["labels"].update(team="a"),
}
HARMFUL: dict[str, Callable[[Object], object]] = {
    "an argument": lambda body: container(body)["args"].append("--page-size=64"),
    "the image": lambda body: container(body).update(image="other"),
    "the replicas": lambda body: body["spec"].update(replicas=5),
    "a lost label": lambda body: body["metadata"]["labels"].clear(),
    "a lost owner": lambda body: body["metadata"].update(ownerReferences=[]),
    "a lost volume": lambda body: body["spec"]["template"]["spec"].update(volumes=[]),
    "a changed limit": lambda body: container(body)["resources"]["limits"].update(memory="3G"),
    "a changed port": lambda body: container(body)["ports"][0].update(containerPort=80),
    "a weaker security context": lambda body: container(body)["securityContext"].update(readOnlyRootFilesystem=False),
    "another applied-hash": lambda body: body["metadata"]["annotations"].update({"minisgl.io/applied-hash": "x"}),
}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
def test_what_others_add_is_left_alone(change: Callable[[Object], object]) -> None:
    body = stored()
    change(body)
    assert not differs(wanted(), body)


@pytest.mark.parametrize("change", HARMFUL.values(), ids=HARMFUL)
def test_what_others_change_of_ours_is_drift(change: Callable[[Object], object]) -> None:
    body = stored()
    change(body)
    assert differs(wanted(), body)


def owned_by(**owner: object) -> dict[Child, Object | None]:
    return {Child.SERVICE: {"metadata": {"ownerReferences": [{"controller": True, **owner}]}}}


def test_our_own_children_pass() -> None:
    check_owners(KEY, a_model(), dict(build_children().items()))


def test_a_child_of_somebody_else_is_a_conflict_that_names_him() -> None:
    with pytest.raises(NameTaken, match="Service smollm2 exists and belongs to Deployment web"):
        check_owners(KEY, a_model(), owned_by(kind="Deployment", name="web", uid="x"))


def test_a_child_without_owner_that_we_never_applied_is_a_conflict() -> None:
    with pytest.raises(NameTaken, match="belongs to nobody"):
        check_owners(KEY, a_model(), {Child.SERVICE: {"metadata": {}}})


def test_a_child_whose_owner_was_removed_by_hand_is_still_ours() -> None:
    managers = [{"manager": "minisgl-operator", "operation": "Apply"}]
    check_owners(KEY, a_model(), {Child.SERVICE: {"metadata": {"managedFields": managers}}})


def test_a_child_of_a_deleted_namesake_is_waited_for() -> None:
    with pytest.raises(Leftover, match="still going away"):
        check_owners(KEY, a_model(), owned_by(kind="MiniSGLModel", name="smollm2", uid="old"))
