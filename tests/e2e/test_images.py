"""The runtime's image as its Dockerfile makes it: it needs nothing of the node but a kernel."""

from __future__ import annotations

import json
from collections.abc import Iterator

import openai
import pytest

from e2e import kube
from e2e.environment import Environment
from e2e.specs import REAL, wanted

NAME = "whole"
PLAIN = {"name": "plain"}
# Every file of the image's own that is a program one could build with or install by.
SEEK = """
import json, os, shutil
tools = ("gcc", "cc", "g++", "clang", "ld", "make", "pip", "pip3")
found = [name for name in tools if shutil.which(name)]
def writable(folder):
    try:
        open(folder + "/probe", "w").close()
    except OSError:
        return False
    return True
folders = [name for name in ("/", "/app", "/opt/venv", "/usr", "/tmp") if writable(name)]
print(json.dumps({"tools": found, "uid": os.getuid(), "writable": folders}))
"""


@pytest.fixture(scope="module")
def whole(operator: str, env: Environment) -> Iterator[str]:
    """The real model on that image, in a container of the cluster's usual runtime class."""
    image = env.whole_runtime_image or (None if env.runtime_class else env.runtime_image)
    if image is None:
        pytest.skip("this cluster has not been given the whole image of the runtime: make image")
    runtime = {"numTokens": 4096, "maxPrefillLength": 1024}
    if env.runtime_class:  # the operator's default here, which shows the node's files
        kube.apply({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": PLAIN, "handler": "runc"})
    pod = {"spec": {"runtimeClassName": PLAIN["name"]}} if env.runtime_class else {}
    kube.apply(wanted(NAME, REAL, image=image, imagePullPolicy="Never", runtime=runtime, podTemplate=pod))
    kube.wait_until(NAME, within=240)
    yield NAME
    kube.delete(NAME)
    kube.kubectl("delete", "runtimeclass", PLAIN["name"], "--ignore-not-found")


def test_a_model_on_the_built_image_answers(whole: str) -> None:
    with kube.port_forward(f"service/{whole}", 80) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="-") as client:
        answer = client.completions.create(model=whole, prompt="The capital of France is", max_tokens=4, temperature=0)
    assert "Paris" in answer.choices[0].text


def test_the_built_image_has_no_compiler_no_installer_no_root_and_needs_no_writable_root(whole: str) -> None:
    seen = json.loads(kube.kubectl("exec", f"deployment/{whole}", "--", "python3", "-c", SEEK))
    assert seen == {"tools": [], "uid": 10001, "writable": ["/tmp"]}


def test_without_a_compiler_the_kernels_that_the_image_carries_are_taken(whole: str) -> None:
    names = kube.kubectl("exec", f"deployment/{whole}", "--", "ls", "/app/minisgl/kernels/built").split()
    assert [name for name in names if name.endswith(".so")] != []
