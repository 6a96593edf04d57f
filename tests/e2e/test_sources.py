"""Where models come from and what is kept of them: an object store in the cluster, claims, images."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import openai
import pytest

from e2e import kube, storage
from e2e.environment import Environment
from e2e.specs import REAL, TINY

Model = Callable[..., str]
SMALL = {"numTokens": 4096, "maxPrefillLength": 1024}


@pytest.fixture(scope="module")
def store(env: Environment, tiny: str) -> Iterator[None]:
    """The object store with the folders of the models as buckets."""
    with storage.object_store(env):
        yield


@pytest.fixture
def shared(env: Environment) -> Iterator[str]:
    """A claim that any number of pods may write."""
    folder = env.models_folder / "e2e-cache"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    folder.chmod(0o777)  # no driver gives a folder of the node to the group of a pod
    with storage.claim("e2e-cache", "ReadWriteMany", folder=folder) as name:
        yield name
    shutil.rmtree(folder)


def ask(name: str) -> str:
    with kube.port_forward(f"service/{name}", 80) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="-") as client:
        answer = client.chat.completions.create(
            model=name,
            messages=[{"role": "user", "content": "What is the capital of France?"}],
            max_tokens=16,
            temperature=0,
        )
    return answer.choices[0].message.content or ""


def test_a_model_in_a_bucket_is_served_and_outlives_its_store_in_a_claim(
    env: Environment, tiny: str, model: Model, shared: str
) -> None:
    source = REAL.replace("pvc://models", "s3:/")
    with storage.object_store(env):
        model("by-s3", source, runtime=SMALL, cache={"claim": shared}, model={"source": source, "s3": storage.S3})
        kube.wait_until("by-s3", within=180)
        assert "Paris" in ask("by-s3")
        told = kube.eventually("engine facts", lambda: kube.get("msgl", "by-s3")["status"].get("engine"), 30)
        assert told["modelRevision"].startswith("s3-")
        status = kube.get("msgl", "by-s3")["status"]
        assert "download" in status["startup"]["runtimeSeconds"]
        # The store goes, its Secret stays: without that Secret no container is made.
        kube.kubectl("delete", "pod", storage.STORE, "--now")
        (pod,) = kube.pods("by-s3")
        kube.kubectl("delete", "pod", pod["metadata"]["name"], "--now")
        kube.eventually("another pod", lambda: kube.pods("by-s3") and kube.pods("by-s3") != [pod], about="by-s3")
        kube.wait_until("by-s3", within=180)
        assert "Paris" in ask("by-s3")


def test_a_key_that_does_not_open_the_bucket_stalls_the_model_and_names_the_secret(store: None, model: Model) -> None:
    keys = {"name": storage.KEYS, "secretAccessKeyKey": "AWS_ACCESS_KEY_ID"}
    spec = {"source": f"s3://{TINY}", "s3": storage.S3 | {"credentialsSecret": keys}}
    model("wrong-key", model=spec, runtime={"dummyWeight": True})
    found = kube.wait_until("wrong-key", "Stalled")
    assert found["reason"] == "AccessDenied"
    assert "SignatureDoesNotMatch" in found["message"]
    assert "spec.model.s3.credentialsSecret" in found["message"]


def test_a_bucket_that_is_not_there_stalls_the_model(store: None, model: Model) -> None:
    model("no-bucket", model={"source": "s3://nobody-has-this", "s3": storage.S3}, runtime={"dummyWeight": True})
    found = kube.wait_until("no-bucket", "Stalled")
    assert found["reason"] == "ModelNotFound"
    assert "s3://nobody-has-this" in found["message"]
    assert "NoSuchBucket" in found["message"]


def test_a_claim_for_one_pod_is_refused_for_two_and_a_lower_number_mends_it(tiny: str, model: Model) -> None:
    gpu = {"type": "cuda"}  # a rollout on GPUs has no pod beyond the replicas
    with storage.claim("one-pod", "ReadWriteOncePod"):
        model("two-of-one", tiny, cache={"claim": "one-pod"}, replicas=2, device=gpu)
        found = kube.wait_until("two-of-one", "Stalled")
        assert found["reason"] == "InvalidSpec"
        assert "spec.cache.claim: claim one-pod is ReadWriteOncePod" in found["message"]
        assert "2 replicas" in found["message"]
        assert not kube.exists("deployment", "two-of-one")
        kube.kubectl("scale", "msgl", "two-of-one", "--replicas=1")
        # No volume stands behind the claim: the inspection's pod waits for one, and is no longer refused.
        jobs = "--selector=minisgl.io/model=two-of-one"
        kube.eventually("an inspection", lambda: kube.find("jobs", jobs), about="two-of-one")


def test_a_cache_that_is_not_there_is_named(tiny: str, model: Model) -> None:
    model("no-cache", tiny, cache={"claim": "nobody-made-this"}, runtime={"dummyWeight": True})

    def told() -> bool:
        ready = kube.condition(kube.get("msgl", "no-cache"), "Ready")
        return ready.get("reason") == "ReferenceNotFound" and "nobody-made-this" in ready["message"]

    kube.eventually("the missing claim in status", told, about="no-cache")
