"""The numbers of the cluster's own world. None of them exists outside its network namespace."""

from __future__ import annotations

from cluster.digest import digest
from cluster.paths import STATE

NODE = "node1"
NODE_IP = "10.201.0.1"
PODS = "10.202.0.0/24"
SERVICES = "10.203.0.0/24"
API_SERVICE_IP = "10.203.0.1"  # the first of SERVICES, as Kubernetes has it
DNS_IP = "10.203.0.10"
DOMAIN = "cluster.local"

API_PORT = 6443
ETCD_PORT, ETCD_PEER_PORT = 2379, 2380
OUTSIDE_PORT = 16443  # on 127.0.0.1 of the machine; another free one is taken when it is in use

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"  # cAdvisor inside the kubelet knows only this path
# All pods live below it, so that `down` can find and remove them; a cluster of another cache has another one.
CGROUP = f"minisgl-{digest(str(STATE))}"
