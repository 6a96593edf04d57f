"""A model that was asked for answers: by the client users hold, by DNS in the cluster, and in Prometheus."""

from __future__ import annotations

import json
import urllib.parse
from functools import partial

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from e2e import environment, kube
from e2e.environment import CHARTS, MODELS, RELEASE, SYSTEM, Environment
from e2e.specs import REAL

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]


def test_the_sample_becomes_ready(smollm2: str) -> None:
    model = kube.get("msgl", smollm2)
    assert model["status"]["readyReplicas"] == model["status"]["replicas"] == 1
    assert kube.condition(model, "Ready")["reason"] == "Serving"
    assert model["metadata"].get("finalizers", []) == []


def test_the_openai_client_gets_an_answer(client: openai.OpenAI, smollm2: str) -> None:
    assert [each.id for each in client.models.list()] == [smollm2]
    answer = client.chat.completions.create(model=smollm2, messages=QUESTION, max_tokens=32, temperature=0)
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 1


def test_the_openai_client_streams_the_same_answer(client: openai.OpenAI, smollm2: str) -> None:
    chunks = list(
        client.chat.completions.create(model=smollm2, messages=QUESTION, max_tokens=32, temperature=0, stream=True)
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "Paris" in text
    assert len(chunks) > 4
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"


def test_an_unknown_model_name_is_an_error_of_the_client(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="another"):
        client.chat.completions.create(model="another", messages=QUESTION)


def test_a_model_by_helm_serves_when_the_installation_returns_and_answers_by_dns(env: Environment) -> None:
    values = {
        "model": {"source": REAL},
        "image": env.runtime_image,
        "runtime": {"numTokens": 4096, "maxPrefillLength": 1024},
        "podTemplate": {"spec": {"runtimeClassName": env.runtime_class} if env.runtime_class else {}},
    }
    chart = str(CHARTS / "minisgl-model")
    settings = [f"--set-json={name}={json.dumps(value)}" for name, value in values.items()]
    try:
        notes = environment.helm(
            "install", "by-helm", chart, "--namespace", MODELS, "--wait", "--timeout=4m", *settings
        )
        assert kube.is_true("by-helm", "Ready"), kube.tell("by-helm")
        assert "kubectl port-forward --namespace models service/by-helm" in notes
        said = environment.helm("test", "by-helm", "--namespace", MODELS, "--timeout=3m")
        assert "Succeeded" in said
    finally:
        environment.helm("uninstall", "by-helm", "--namespace", MODELS, "--ignore-not-found", "--wait")
    kube.eventually("children are gone", lambda: not kube.children("by-helm"), within=60)


def test_the_operator_passes_its_own_helm_test(operator: str) -> None:
    assert "helm test minisgl-operator --namespace minisgl-system" in operator
    assert "Succeeded" in environment.helm("test", RELEASE, "--namespace", SYSTEM, "--timeout=2m")


def test_kubectl_get_shows_what_matters_at_a_glance(smollm2: str) -> None:
    header, row = kube.kubectl("get", "msgl", smollm2).strip().splitlines()
    assert header.split() == ["NAME", "READY", "REPLICAS", "REASON", "PROGRESS", "MODEL", "URL", "AGE"]
    # Nothing is on its way, so that progress is empty.
    assert row.split()[:6] == [smollm2, "True", "1/1", "Serving", REAL, f"http://{smollm2}.{MODELS}.svc/v1"]


def test_status_tells_what_the_engine_decided(smollm2: str) -> None:
    engine = kube.eventually("engine facts", lambda: kube.get("msgl", smollm2)["status"].get("engine"), about=smollm2)
    assert engine["architecture"] == "LlamaForCausalLM"
    assert (engine["device"], engine["dtype"], engine["tensorParallelSize"]) == ("cpu", "float32", 1)
    assert engine["contextLength"] > 1024
    assert engine["kvCache"]["tokens"] == engine["kvCache"]["pages"] * engine["kvCache"]["pageSize"]
    assert 0 < engine["kvCache"]["tokens"] <= 8192
    assert engine["kvCache"]["limitedBy"] == "numTokens"


def test_status_tells_how_long_the_start_took(smollm2: str) -> None:
    startup = kube.get("msgl", smollm2)["status"]["startup"]
    assert startup["scheduled"] <= startup["started"] <= startup["ready"]
    assert startup["seconds"] >= 1
    assert startup["runtimeSeconds"]


def value(query: str) -> float | None:
    """The sum that the cluster's Prometheus answers, or None if it knows nothing."""
    path = (
        f"/api/v1/namespaces/monitoring/services/prometheus:9090/proxy/api/v1/query?query={urllib.parse.quote(query)}"
    )
    result = json.loads(kube.kubectl("get", "--raw", path))["data"]["result"]
    return float(result[0]["value"][1]) if result else None


def has_result(query: str) -> bool:
    """Whether the query gives anything; a comparison that is false gives nothing."""
    return value(query) is not None


def test_prometheus_in_the_cluster_sees_the_model_and_the_operator(client: openai.OpenAI, smollm2: str) -> None:
    client.chat.completions.create(model=smollm2, messages=QUESTION, max_tokens=8)
    for query in (
        "sum(minisgl_generation_tokens_total) > 0",
        "sum(minisgl_time_to_first_token_seconds_count) > 0",
        "sum(minisgl_requests_running) >= 0",
        'sum(minisgl_operator_reconcile_total{result="ok"}) > 0',
        "sum(minisgl_operator_models) > 0",
        'sum(minisgl_operator_cold_start_seconds_count{phase="whole"}) > 0',
    ):
        kube.eventually(query, partial(has_result, query), within=60)
