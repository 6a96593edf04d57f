"""`python -m cluster.demo`: from an empty cluster to an answer, one line per phase. Needs `cluster up` and the venv.

Idempotent: what is there already is upgraded, and nothing is removed. A phase that fails says what to do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import openai
import yaml
from openai.types.chat import ChatCompletionMessageParam

from charts.tools import ROOT, program
from e2e import environment, kube
from e2e.environment import MODELS

SAMPLE = ROOT / "manifests" / "samples" / "smollm2-cpu.yaml"
QUESTION = "What is the capital of France?"
START_SECONDS = 300  # SmolLM2 needs about 15 on a free core
SCRAPE_SECONDS = 60
TOKENS = f'sum(minisgl_generation_tokens_total{{namespace="{MODELS}"}})'
PROMETHEUS = "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy/api/v1/query"
T = TypeVar("T")


class DemoError(Exception):
    """A phase failed; the text says what, and what to do."""


def main() -> int:
    """Run all phases; returns the exit code."""
    try:
        connection = phase("cluster", connect)
        phase("operator", lambda: environment.install_operator(environment.read()))
        name = phase("model", serve)
        answered = phase("question", lambda: ask(name))
        show(f"kubectl get msgl -n {MODELS}", kube.kubectl("get", "msgl"))
        show(f"prometheus: {TOKENS}", phase("prometheus", lambda: measure(answered)))
    except DemoError as error:
        say(f"\ndemo failed in phase {error}")
        return 1
    say(farewell(name, connection))
    return 0


def say(text: str) -> None:
    """Tell whoever watches, at once."""
    print(text, flush=True)


def show(command: str, output: str) -> None:
    """A command that the reader can repeat, and what it said."""
    say(f"\n$ {command}\n{output.rstrip()}\n")


def phase(name: str, work: Callable[[], T]) -> T:
    """Run one phase and print its line; a failure that was foreseen ends the demo with what to do."""
    started = time.monotonic()
    try:
        result = work()
    except (LookupError, FileNotFoundError, environment.HelmError, kube.KubectlError, AssertionError) as error:
        raise DemoError(f"{name}: {error}\nto start anew: make cluster-down demo") from error
    except (openai.OpenAIError, subprocess.TimeoutExpired) as error:
        raise DemoError(
            f"{name}: {error}\nlook: kubectl logs -n {MODELS} -l app.kubernetes.io/part-of=minisgl"
        ) from error
    say(f"{name:<10} {time.monotonic() - started:6.1f} s")
    return result


def connect() -> dict[str, str]:
    """Learn from the harness where the cluster and its programs are; later phases find it in the environment."""
    command = [sys.executable, "-m", "cluster", "env"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise LookupError(f"no cluster: {answer.stderr.strip()}; run: make cluster-up")
    connection: dict[str, str] = {key: str(value) for key, value in json.loads(answer.stdout).items()}
    os.environ.update(connection)
    kube.kubectl("get", "--raw", "/readyz")
    return connection


def serve() -> str:
    """Apply the sample and wait until it is Ready, telling each change of its condition; returns its name."""
    kube.kubectl("apply", "--filename", str(SAMPLE))
    name: str = yaml.safe_load(SAMPLE.read_text())["metadata"]["name"]
    told, end = "", time.monotonic() + START_SECONDS
    while not kube.is_true(name, "Ready"):
        ready = kube.condition(kube.get("msgl", name), "Ready")
        text = f"{ready.get('reason', 'Unseen')}: {ready.get('message', 'the operator has not looked at it yet')}"
        if text != told:
            say(f"           {text}")
            told = text
        if kube.is_true(name, "Stalled") or time.monotonic() > end:
            raise LookupError(f"{name} does not become Ready: {text}\n{kube.tell(name)}")
        time.sleep(kube.POLL_SECONDS)
    return name


def ask(name: str) -> int:
    """Ask twice through the model's Service: whole, then as a stream; returns the tokens of both answers."""
    with kube.port_forward(f"service/{name}", 80) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="-") as client:
        question: list[ChatCompletionMessageParam] = [{"role": "user", "content": QUESTION}]
        say(f'           "{QUESTION}"')
        whole = client.chat.completions.create(model=name, messages=question, max_tokens=32, temperature=0)
        say(f"           answer: {whole.choices[0].message.content}")
        print("           stream: ", end="")
        stream = client.chat.completions.create(
            model=name, messages=question, max_tokens=32, temperature=0, stream=True
        )
        for chunk in stream:
            if chunk.choices:
                print(chunk.choices[0].delta.content or "", end="", flush=True)
        say("")
        return 2 * whole.usage.completion_tokens if whole.usage else 1  # greedy: both answers are the same


def measure(answered: int) -> str:
    """Ask the cluster's Prometheus until it knows of the tokens answered; its next scrape may be seconds away."""
    path = f"{PROMETHEUS}?query={urllib.parse.quote(TOKENS)}"

    def result() -> str:
        found = json.loads(kube.kubectl("get", "--raw", path))["data"]["result"]
        return f"{found[0]['value'][1]} tokens" if found and float(found[0]["value"][1]) >= answered else ""

    return str(kube.eventually("Prometheus knows of generated tokens", result, within=SCRAPE_SECONDS))


def farewell(name: str, connection: dict[str, str]) -> str:
    """How to go on."""
    return f"""\
The cluster stays up. Go on with:

  export KUBECONFIG={connection["KUBECONFIG"]}
  export PATH={Path(program("kubectl")).parent}:$PATH
  kubectl get msgl -n {MODELS}
  kubectl port-forward -n {MODELS} service/{name} 8080:80 &
  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{{"model": "{name}", "messages": [{{"role": "user", "content": "{QUESTION}"}}]}}'

  make cluster-down
"""


if __name__ == "__main__":
    sys.exit(main())
