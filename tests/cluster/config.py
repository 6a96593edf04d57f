"""Renders every configuration file of the node as text, from a few values. Pure: the same values give the same
text, and the running cluster is told apart from another by a hash over these texts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.address import (
    API_PORT,
    CGROUP,
    CONTAINERD_SOCKET,
    DNS_IP,
    DOMAIN,
    NODE,
    NODE_IP,
    PODS,
)  # fmt: skip
from cluster.paths import CONFIG, PKI, POD_VENV, STATE, STORE, VENV

SYSTEM_ACCOUNTS = ("system:kube-scheduler", "system:kube-controller-manager", f"system:node:{NODE}",
                   "system:kube-proxy", "system:apiserver")  # fmt: skip


@dataclass(frozen=True)
class Node:
    """What differs between machines and clones."""

    pause_image: str
    cni_folder: Path
    shared: tuple[Path, ...]  # folders of the machine that pods of RuntimeClass hostfs see, read-only


def render_config(node: Node) -> dict[str, str]:
    """File name → text of everything below the folder `config`."""
    return {
        "audit.json": _json(audit_policy()),
        "kubelet.json": _json(kubelet()),
        "proxy.json": _json(proxy()),
        "cni/10-minisgl.conflist": _json(cni()),
        "containerd.toml": containerd(node),
        "sweep.toml": sweep(),
        "hosts": f"127.0.0.1 localhost\n{NODE_IP} {NODE}\n",
        # The node and its programs ask the cluster's name service; without it a look-up of the own name takes 10 s.
        "resolv.conf": f"nameserver {DNS_IP}\nsearch default.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}\n"
        "options timeout:1 attempts:1\n",
        "resolv.pods.conf": "# pods with dnsPolicy Default get no name server: nothing outside can be reached\n",
    }


def audit_policy() -> dict[str, Any]:
    """What the API server writes down: every write with its body, every read by name; never a Secret's content."""
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "users": list(SYSTEM_ACCOUNTS)},
            {
                "level": "None",
                "nonResourceURLs": ["/healthz*", "/readyz*", "/livez*", "/version", "/openapi/*", "/api*"],
            },
            {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets", "serviceaccounts/token"]}]},
            {"level": "RequestResponse", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
            {"level": "Metadata"},
        ],
    }


def kubelet() -> dict[str, Any]:
    """The kubelet's configuration file."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "readOnlyPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(PKI / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(PKI / "kubelet.crt"),
        "tlsPrivateKeyFile": str(PKI / "kubelet.key"),
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "failCgroupV1": False,  # many machines still have it
        "failSwapOn": False,
        "clusterDomain": DOMAIN,
        "clusterDNS": [DNS_IP],
        "resolvConf": str(CONFIG / "resolv.pods.conf"),
        "podLogsDir": "/var/log/pods",
        # The disk is the developer's: never evict or collect because it is rather full.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "enforceNodeAllocatable": ["pods"],
        "nodeStatusUpdateFrequency": "5s",
        "maxPods": 60,
    }


def proxy() -> dict[str, Any]:
    """kube-proxy's configuration file."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(CONFIG / "kube-proxy.kubeconfig")},
        "bindAddress": NODE_IP,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "hostnameOverride": NODE,
        "clusterCIDR": PODS,
        "mode": "iptables",
        # Connection tracking limits are the machine's, not a namespace's: leave them alone.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def cni() -> dict[str, Any]:
    """One bridge inside the namespace; no masquerading, for there is nowhere to go."""
    bridge = {
        "type": "bridge",
        "bridge": "minisgl0",
        "isGateway": True,
        "hairpinMode": True,
        "promiscMode": False,
        "ipMasq": False,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    return {"cniVersion": "1.0.0", "name": "minisgl", "plugins": [bridge, portmap]}


def containerd(node: Node) -> str:
    """containerd with two runtimes: the usual one, and `hostfs`, whose base specification mounts `node.shared`."""
    return f"""\
version = 2
root = "{STORE}"
state = "/run/containerd"
[grpc]
address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{node.pause_image}"
restrict_oom_score_adj = true
enable_unprivileged_ports = true  # lets CoreDNS bind 53 with every capability dropped
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{node.cni_folder}"
conf_dir = "{CONFIG}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.hostfs]
runtime_type = "io.containerd.runc.v2"
base_runtime_spec = "{CONFIG}/hostfs.json"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.hostfs.options]
SystemdCgroup = false
"""


def sweep() -> str:
    """containerd without Kubernetes' interface: it can forget the containers of the last run before anyone asks."""
    return f"""\
version = 2
root = "{STORE}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{CONTAINERD_SOCKET}"
"""


def hostfs(spec: dict[str, Any], shared: tuple[Path, ...]) -> str:
    """The base specification of RuntimeClass hostfs: containerd's own (`ctr oci spec`) and the shared folders."""
    spec["process"].pop("rlimits", None)  # the kubelet's own limits hold
    places = {path: POD_VENV if path.name == VENV.name else path for path in shared}
    spec["mounts"] += [
        {"destination": str(place), "type": "bind", "source": str(path), "options": ["rbind", "ro", "nosuid", "nodev"]}
        for path, place in places.items()
    ]
    return _json(spec)


def kubeconfig(server: str, authority: str, token: str, user: str) -> str:
    """A kubeconfig with everything inside; JSON is YAML too. `authority` is the CA in base64."""
    return _json({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "minisgl", "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "minisgl", "context": {"cluster": "minisgl", "user": user}}],
        "current-context": "minisgl",
    })  # fmt: skip


def sandbox_script(kept: tuple[Path, ...], pause: Path) -> str:
    """What runs as pid 1 inside the fresh namespaces before it becomes the pause program.

    /var and /run are the cluster's own. Folders of ours that lie below them are held open first and put back;
    `mount` must not look up the name of what is held, for that name leads to the empty folder by now.
    """
    hidden = [path for path in kept if path.parts[1:2] in (("var",), ("run",))]
    hold = "\n".join(f'exec {fd}<"{path}"' for fd, path in enumerate(hidden, 3))
    restore = "\n".join(
        f'mkdir -p "{path}" && mount --no-canonicalize --rbind /proc/self/fd/{fd} "{path}" && exec {fd}<&-'
        for fd, path in enumerate(hidden, 3)
    )
    return f"""\
set -eu
mount --make-rprivate /
{hold}
mount --bind {CONFIG}/hosts /etc/hosts
mount --bind {STATE}/var /var
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock
{restore}
resolv=$(readlink -m /etc/resolv.conf)
case $resolv in /run/*) mkdir -p "${{resolv%/*}}" && : >"$resolv" ;; esac
mount --bind {CONFIG}/resolv.conf "$resolv"
echo {NODE} >/proc/sys/kernel/hostname
ip link set lo up
ip link add node0 type veth peer name node1
ip addr add {NODE_IP}/24 dev node0
ip link set node0 up
ip link set node1 up
ip route add default via {NODE_IP} dev node0
echo 1 >/proc/sys/net/ipv4/ip_forward
: >{STATE}/sandboxed
exec {pause} sandbox
"""


def outside_server(port: int) -> str:
    """The API server's address for people on the machine."""
    return f"https://127.0.0.1:{port}"


def inside_server() -> str:
    """The API server's address for the node's own programs."""
    return f"https://{NODE_IP}:{API_PORT}"


def _json(value: object) -> str:
    return json.dumps(value, indent=1) + "\n"
