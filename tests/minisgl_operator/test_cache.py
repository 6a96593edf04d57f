"""The cache of a pod: where things are kept, and who may write there."""

from typing import Any

from minisgl_operator.api import Cache
from minisgl_operator.build.cache import Storage, build_cache
from minisgl_operator.objects import Child, Object
from support.cluster_objects import build_children


def storage(**fields: Any) -> Storage:
    return build_cache(Cache.model_validate(fields))


def places(**fields: Any) -> dict[str, str]:
    return {each["name"]: each["value"] for each in storage(**fields).env}


def pod(**cache: Any) -> Object:
    spec: Object = build_children(cache=cache)[Child.DEPLOYMENT]["spec"]["template"]["spec"]
    return spec


def test_without_a_word_a_pod_has_a_folder_of_its_own() -> None:
    assert storage().volumes == [{"name": "cache", "emptyDir": {}}]
    assert storage(sizeLimit="200Gi").volumes == [{"name": "cache", "emptyDir": {"sizeLimit": "200Gi"}}]


def test_a_claim_takes_weights_and_kernels_at_the_same_paths() -> None:
    assert storage(claim="shared").volumes == [{"name": "cache", "persistentVolumeClaim": {"claimName": "shared"}}]
    assert storage(claim="shared").mounts == storage().mounts
    assert places(claim="shared") == places()


def test_kernels_may_have_a_claim_of_their_own() -> None:
    found = storage(claim="weights", jitClaim="kernels")
    claims = [volume["persistentVolumeClaim"]["claimName"] for volume in found.volumes]
    assert claims == ["weights", "kernels"]
    folders = places(claim="weights", jitClaim="kernels")
    jit = {name for name, folder in folders.items() if folder.startswith("/jit/")}
    assert jit == set(folders) - {"HF_HOME", "MINISGL_CACHE"}
    assert storage(jitClaim="kernels").volumes[0] == {"name": "cache", "emptyDir": {}}


def test_every_place_lies_in_a_volume_that_can_be_written() -> None:
    for fields in ({}, {"claim": "a"}, {"jitClaim": "b"}):
        spec = pod(**fields)
        (container,) = spec["containers"]
        writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
        for each in container["env"]:
            if each.get("value", "").startswith("/"):
                assert any(f"{each['value']}/".startswith(f"{path}/") for path in writable), each
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}


def test_a_claim_is_given_to_the_group_of_the_pod() -> None:
    assert "fsGroup" not in pod()["securityContext"]
    for fields in ({"claim": "a"}, {"jitClaim": "b"}):
        context = pod(**fields)["securityContext"]
        assert context["fsGroup"] == context["runAsGroup"]
        assert context["fsGroupChangePolicy"] == "OnRootMismatch"
