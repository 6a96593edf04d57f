"""Starts the programs of the cluster inside the sandbox, with their flags, and waits until each says it is well."""

from __future__ import annotations

import http.client
import os
import ssl
import subprocess
import sys
from pathlib import Path

from cluster.address import API_PORT, ETCD_PEER_PORT, ETCD_PORT, NODE, NODE_IP, SERVICES
from cluster.go import KUBE
from cluster.paths import AUDIT, BIN, CONFIG, HERE, KUBECONFIG, LOGS, PKI, PORT, STATE
from cluster.process import record, recorded, run, wait_for
from cluster.sandbox import environment, init_pid, spawn_inside
from cluster.say import ClusterError

ETCD = f"http://127.0.0.1:{ETCD_PORT}"
ETCD_PEER = f"http://127.0.0.1:{ETCD_PEER_PORT}"
DAEMONS = ("containerd", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
EVERYTHING = ("holder", "init", "forward", *DAEMONS)


def start_control_plane() -> None:
    """etcd and the API server; returns at once."""
    _spawn(
        "etcd",
        "--name=n1",
        f"--data-dir={STATE}/etcd",
        f"--listen-client-urls={ETCD}",
        f"--advertise-client-urls={ETCD}",
        f"--listen-peer-urls={ETCD_PEER}",
        f"--initial-advertise-peer-urls={ETCD_PEER}",
        f"--initial-cluster=n1={ETCD_PEER}",
        "--unsafe-no-fsync",  # its data need not outlive the machine
        "--log-level=warn",
    )
    _spawn(
        "kube-apiserver",
        f"--etcd-servers={ETCD}",
        "--bind-address=0.0.0.0",
        f"--secure-port={API_PORT}",
        f"--advertise-address={NODE_IP}",
        f"--tls-cert-file={PKI}/apiserver.crt",
        f"--tls-private-key-file={PKI}/apiserver.key",
        f"--client-ca-file={PKI}/ca.crt",
        f"--token-auth-file={PKI}/tokens.csv",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--service-cluster-ip-range={SERVICES}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={PKI}/sa.pub",
        f"--service-account-signing-key-file={PKI}/sa.key",
        "--allow-privileged=true",
        f"--kubelet-client-certificate={PKI}/kubelet-client.crt",
        f"--kubelet-client-key={PKI}/kubelet-client.key",
        f"--kubelet-certificate-authority={PKI}/ca.crt",
        "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={PKI}/ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={PKI}/front-proxy.crt",
        f"--proxy-client-key-file={PKI}/front-proxy.key",
        f"--audit-policy-file={CONFIG}/audit.json",
        f"--audit-log-path={AUDIT}",
        "--audit-log-maxsize=1000",  # megabytes: a test reads the whole session in one file
    )


def start_controllers() -> None:
    """Controller manager and scheduler; both retry until the API server serves."""
    _spawn("kube-controller-manager", *_as("kube-controller-manager"), "--bind-address=127.0.0.1",
           "--secure-port=10257", f"--service-account-private-key-file={PKI}/sa.key", f"--root-ca-file={PKI}/ca.crt",
           "--use-service-account-credentials=true", "--leader-elect=false",
           f"--cluster-signing-cert-file={PKI}/ca.crt", f"--cluster-signing-key-file={PKI}/ca.key",
           # It makes a client for each of 40 controllers first; at the usual 20 requests a second that takes 4 s.
           "--kube-api-qps=200", "--kube-api-burst=400",
           # Tests of node failure and of autoscaling must not wait for minutes.
           "--node-monitor-grace-period=20s", "--horizontal-pod-autoscaler-sync-period=5s")  # fmt: skip
    _spawn(
        "kube-scheduler",
        *_as("kube-scheduler"),
        "--bind-address=127.0.0.1",
        "--secure-port=10259",
        "--leader-elect=false",
    )


def start_node() -> None:
    """The kubelet and kube-proxy."""
    _spawn("kubelet", f"--config={CONFIG}/kubelet.json", f"--kubeconfig={CONFIG}/kubelet.kubeconfig",
           f"--hostname-override={NODE}", f"--node-ip={NODE_IP}", f"--root-dir={STATE}/kubelet")  # fmt: skip
    _spawn("kube-proxy", f"--config={CONFIG}/proxy.json")


def start_forward() -> int:
    """Open the API server to 127.0.0.1 of this machine; return the port."""
    PORT.unlink(missing_ok=True)
    log = LOGS / "forward.log"
    argv = [sys.executable, "-m", "cluster.forward", str(init_pid()), str(STATE)]
    with log.open("ab") as out:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                                 env={**environment(), "PYTHONPATH": str(HERE.parent)})  # fmt: skip
    record("forward", child.pid)
    if not wait_for(lambda: PORT.exists() or child.poll() is not None, 10) or child.poll() is not None:
        raise ClusterError("the forwarder of the API server did not start", "python -m cluster down, then up", log)
    return int(PORT.read_text())


def wait_for_api(timeout: float) -> None:
    """Wait until the API server says it is ready, or one of the two programs behind it is gone."""
    programs = ("etcd", "kube-apiserver")
    lost: list[str] = []

    def done() -> bool:
        lost[:] = [name for name in programs if recorded(name) is None]
        return bool(lost) or is_api_ready()

    if not wait_for(done, timeout, every=0.1):
        raise ClusterError(f"the API server is not ready after {timeout:.0f} s", "python -m cluster down, then up",
                           LOGS / "kube-apiserver.log")  # fmt: skip
    if lost:
        raise ClusterError(f"{lost[0]} ended", "python -m cluster down, then up", LOGS / f"{lost[0]}.log")


def is_api_ready() -> bool:
    """One question to /readyz through the forwarder, as any user's client would ask it."""
    try:
        context = ssl.create_default_context(cafile=str(PKI / "ca.crt"))
        connection = http.client.HTTPSConnection("127.0.0.1", int(PORT.read_text()), timeout=2, context=context)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.client.OK
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException):
        return False


def lost_programs() -> list[str]:
    """Those of the cluster's programs that are not running."""
    return [name for name in EVERYTHING if recorded(name) is None]


def kubectl(*arguments: str | Path, text: str | None = None, timeout: float = 60) -> str:
    """kubectl as the administrator, from outside."""
    env = {"PATH": os.environ.get("PATH", ""), "HOME": str(STATE), "KUBECONFIG": str(KUBECONFIG)}
    return run([BIN / "kubectl", *arguments], log="kubectl", text=text, timeout=timeout, env=env,
               next_step=f"KUBECONFIG={KUBECONFIG} {BIN}/kubectl get pods,events -A")  # fmt: skip


def _spawn(name: str, *flags: str) -> None:
    spawn_inside(name, [KUBE.path(), name, *flags])


def _as(user: str) -> list[str]:
    return [f"--{kind}kubeconfig={CONFIG}/{user}.kubeconfig" for kind in ("", "authentication-", "authorization-")]
