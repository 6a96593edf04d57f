"""The cluster as the tests hold it: kubectl with bounded waits that show the object and its pods when they fail."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from charts.tools import program
from e2e.environment import MODELS

Object = dict[str, Any]
POLL_SECONDS = 0.3  # a kubectl call costs about 0.1 s of a core


class KubectlError(Exception):
    """kubectl ended with an error; the text is what its user reads."""


def kubectl(*arguments: str, given: str | None = None, timeout: float = 60) -> str:
    """Run kubectl in the namespace of the models, unless the arguments name another."""
    command = [program("kubectl"), "--namespace", MODELS, *arguments]
    answer = subprocess.run(command, input=given, capture_output=True, text=True, timeout=timeout, check=False)
    if answer.returncode:
        raise KubectlError(f"kubectl {' '.join(arguments)}: {answer.stdout}{answer.stderr}")
    return answer.stdout


def apply(item: Object) -> None:
    """Apply one object as a user does."""
    kubectl("apply", "--filename", "-", given=json.dumps(item))


def get(kind: str, name: str, *flags: str) -> Object:
    """Read one object; raises KubectlError if it is not there."""
    found: Object = json.loads(kubectl("get", kind, name, "--output", "json", *flags))
    return found


def find(kind: str, *flags: str) -> list[Object]:
    """Read all objects of a kind that the flags select."""
    items: list[Object] = json.loads(kubectl("get", kind, "--output", "json", *flags))["items"]
    return items


def exists(kind: str, name: str) -> bool:
    """Whether the object is there."""
    return bool(kubectl("get", kind, name, "--ignore-not-found", "--output", "name"))


def delete(name: str) -> None:
    """Delete a model and wait until its children have been collected."""
    kubectl("delete", "msgl", name, "--ignore-not-found", "--wait=true")
    eventually(f"children of {name} are gone", lambda: not children(name), within=60)


def children(name: str) -> list[str]:
    """What belongs to a model, as kind/name."""
    kinds = "deployments,replicasets,pods,jobs,services,serviceaccounts,networkpolicies"
    return kubectl("get", kinds, "--selector", f"minisgl.io/model={name}", "--output", "name").split()


def pods(name: str) -> list[Object]:
    """The model's pods that are not leaving."""
    found = find("pods", "--selector", f"minisgl.io/model={name}")
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def condition(item: Object, kind: str) -> Object:
    """One condition of an object; an empty one if it is not there."""
    conditions = item.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == kind), {})


def is_true(name: str, kind: str) -> Object | None:
    """The condition of model `name` if it is True for the newest spec."""
    model = get("msgl", name)
    found = condition(model, kind)
    current = model["status"].get("observedGeneration") == model["metadata"]["generation"]
    return found if found.get("status") == "True" and current else None


def wait_until(name: str, kind: str = "Ready", within: float = 120) -> Object:
    """Wait until a condition of model `name` is True; returns the condition."""
    found: Object = eventually(f"{kind} of {name}", lambda: is_true(name, kind), within, about=name)
    return found


def eventually(what: str, probe: Callable[[], Any], within: float = 30, about: str | None = None) -> Any:
    """Ask `probe` until it returns something true, and return that; a failure tells what was seen of `about`."""
    end = time.monotonic() + within
    while True:
        if answer := probe():
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {within} s: {what}\n{tell(about) if about else ''}")
        time.sleep(POLL_SECONDS)


def tell(name: str) -> str:
    """All that helps to understand a model that does not do what it should."""
    parts = []
    for arguments in (
        ("get", "msgl", name, "--output", "jsonpath={.status.conditions}"),
        ("get", "pods", "--selector", f"minisgl.io/model={name}", "--output", "wide"),
        ("logs", "--selector", f"minisgl.io/model={name}", "--tail", "30", "--prefix"),
        ("get", "events", "--sort-by", ".metadata.creationTimestamp"),
    ):
        try:
            parts.append(kubectl(*arguments)[-3000:])
        except (KubectlError, subprocess.TimeoutExpired) as error:
            parts.append(str(error))
    return "\n".join(parts)


@contextmanager
def port_forward(target: str, port: int, namespace: str = MODELS) -> Iterator[str]:
    """`kubectl port-forward` while the block runs; yields http://127.0.0.1:PORT."""
    command = [program("kubectl"), "--namespace", namespace, "port-forward", target, f":{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
            if found is None:
                raise KubectlError(f"port-forward to {target}: {line}{process.stdout.read()}")
            yield f"http://127.0.0.1:{found[1]}"
        finally:
            process.terminate()
