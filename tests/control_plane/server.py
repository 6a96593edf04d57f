"""etcd and kube-apiserver as plain processes on free ports of loopback, and the controllers that a test asks for.

The programs are those of `make cluster-build`. Everything dies with this process and with its folder.
"""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import httpx
import yaml

from charts.tools import ROOT, program
from cluster.process import MORTAL
from control_plane.client import Client
from minisgl_operator.cluster import LEASE_RULES

ACCOUNT = "system:serviceaccount:minisgl-system:minisgl-operator"
GROUPS = "system:serviceaccounts,system:serviceaccounts:minisgl-system,system:authenticated"
ADMIN_TOKEN, OPERATOR_TOKEN = "admin-token", "operator-token"  # of a server that only this machine reaches
SPARE_TOKENS = tuple(f"spare-{number}" for number in range(64))  # each an account of that name, without any right
START_SECONDS = 90
ANSWER_SECONDS = 60  # a list of a thousand models, on two cores that do all the rest too
# What the operator writes, but for its Lease.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "resources": [{"group": "coordination.k8s.io"}]},
        {"level": "Metadata", "users": [ACCOUNT], "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
        {"level": "None"},
    ],
}


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class ControlPlane:
    """One running API server with our definition and our operator's rights in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._logs: list[IO[bytes]] = []
        self.port = free_port()
        self.admin = self.client(ADMIN_TOKEN)
        self.audit_log = folder / "audit.jsonl"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def client(self, token: str) -> Client:
        """A client that carries this token."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it made its own certificate a moment ago
        headers = {"Authorization": f"Bearer {token}"}
        return Client(httpx.Client(base_url=self.url, verify=context, headers=headers, timeout=ANSWER_SECONDS))

    def start(self) -> None:
        """Start both and wait until the API answers; raises RuntimeError with the log's end if it never does."""
        etcd, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        folder = self._folder
        key = folder / "sa.key"
        subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key], check=True)
        (folder / "tokens.csv").write_text(
            f'{ADMIN_TOKEN},admin,1,"system:masters"\n{OPERATOR_TOKEN},{ACCOUNT},2,"{GROUPS}"\n'
            + "".join(f"{name},{name},{name}\n" for name in SPARE_TOKENS)
        )
        (folder / "audit.json").write_text(json.dumps(AUDIT_POLICY))
        self._spawn("etcd", "--name=n1", f"--data-dir={folder}/etcd", f"--listen-client-urls={etcd}",
                    f"--advertise-client-urls={etcd}", f"--listen-peer-urls={peer}",
                    f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=n1={peer}", "--unsafe-no-fsync",
                    "--log-level=warn")  # fmt: skip
        self._spawn("kube-apiserver", f"--etcd-servers={etcd}", "--bind-address=127.0.0.1",
                    f"--secure-port={self.port}", f"--cert-dir={folder}/certs",
                    f"--token-auth-file={folder}/tokens.csv", "--authorization-mode=RBAC",
                    "--service-cluster-ip-range=10.203.0.0/16",
                    "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={key}",
                    f"--service-account-signing-key-file={key}", "--endpoint-reconciler-type=none",
                    "--advertise-address=127.0.0.1", f"--audit-policy-file={folder}/audit.json",
                    f"--audit-log-path={self.audit_log}")  # fmt: skip
        self._wait()
        self._prepare()

    def start_controllers(self, *names: str, flags: Sequence[str] = ()) -> None:
        """Start the controller manager with these controllers only."""
        config = self.kubeconfig(self.url, ADMIN_TOKEN, self._folder / "controllers.kubeconfig")
        self._spawn("kube-controller-manager", f"--kubeconfig={config}", f"--controllers={','.join(names)}",
                    "--leader-elect=false", f"--secure-port={free_port()}", "--bind-address=127.0.0.1",
                    f"--cert-dir={self._folder}/controllers", *flags)  # fmt: skip

    def kubeconfig(self, server: str, token: str, path: Path) -> Path:
        """Write a kubeconfig."""
        named = {
            "clusters": [{"name": "x", "cluster": {"server": server, "insecure-skip-tls-verify": True}}],
            "users": [{"name": "x", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        }
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "x", **named}))
        return path

    def allow_lease(self, name: str) -> None:
        """Let the operator's account have a Lease of this name too, as a release of that name would."""
        meta = {"name": f"lease-{name}", "namespace": "minisgl-system"}
        rules = [rule | ({"resourceNames": [name]} if "resourceNames" in rule else {}) for rule in LEASE_RULES]
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": meta["name"]}
        subject = {"kind": "ServiceAccount", "name": "minisgl-operator", "namespace": "minisgl-system"}
        self.admin.create_object({"kind": "Role", "metadata": meta, "rules": rules})
        self.admin.create_object(
            {"kind": "RoleBinding", "metadata": meta, "roleRef": role, "subjects": [subject]},
        )

    def stop(self) -> None:
        """End what was started, newest first."""
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        for log in self._logs:
            log.close()
        self.admin.close()

    def _prepare(self) -> None:
        """What an installation brings: namespace, definition, rights."""
        self.admin.create_namespace("minisgl-system")
        manifests = ROOT / "manifests"
        for name in ("crd.yaml", "rbac.yaml"):
            for item in yaml.safe_load_all((manifests / name).read_text()):
                self.admin.create_object(item)
        self.admin.wait_for_models()

    def _spawn(self, name: str, *flags: str) -> None:
        log = (self._folder / f"{name}.log").open("wb")
        self._logs.append(log)
        command = [*MORTAL, program(name), *flags]
        self._processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def _wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while not self.admin.is_ready():
            gone = [process.args for process in self._processes if process.poll() is not None]
            if gone or time.monotonic() > end:
                tail = (self._folder / "kube-apiserver.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"the API server does not answer; ended: {gone}\n{tail}")
            time.sleep(0.1)
