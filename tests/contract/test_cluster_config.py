"""What the test cluster's node is told, and what its manifests promise to other rooms."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import config, images, objects, pki, process
from cluster.address import API_SERVICE_IP, CGROUP, DNS_IP, NODE_IP
from cluster.paths import MODELS

NODE = config.Node("docker.io/local/pause:1", Path("/usr/lib/cni"), (Path("/usr"), Path("/somewhere/.venv")))
NAMES = {short: f"docker.io/local/{short}:1" for short in ("coredns", "prometheus", "pause")}


def rendered() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(objects.render_objects(NAMES)))


def one(kind: str, name: str) -> dict[str, Any]:
    (found,) = [item for item in rendered() if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return found


def test_the_same_node_gets_the_same_files() -> None:
    assert config.render_config(NODE) == config.render_config(NODE)


def test_every_json_file_can_be_read() -> None:
    for name, text in config.render_config(NODE).items():
        if name.endswith((".json", ".conflist")):
            assert json.loads(text)


def test_pods_live_in_the_cgroup_that_down_removes() -> None:
    assert config.kubelet()["cgroupRoot"] == f"/{CGROUP}"


def test_no_secret_reaches_the_audit_log() -> None:
    rules = config.audit_policy()["rules"]
    secret = next(rule for rule in rules if "secrets" in str(rule.get("resources")))
    assert secret["level"] == "Metadata"
    assert rules.index(secret) < next(n for n, rule in enumerate(rules) if rule["level"] == "RequestResponse")


def test_the_shared_folders_are_mounted_read_only() -> None:
    spec = json.loads(config.hostfs({"process": {"rlimits": []}, "mounts": []}, NODE.shared))
    assert [mount["destination"] for mount in spec["mounts"]] == ["/usr", "/opt/venv"]
    assert all({"ro", "nosuid", "nodev"} <= set(mount["options"]) for mount in spec["mounts"])


def test_folders_below_var_are_put_back_into_the_sandbox() -> None:
    script = config.sandbox_script((Path("/var/cache/minisgl"), Path("/home/me/minisgl")), Path("/x/pause"))
    assert 'mount --no-canonicalize --rbind /proc/self/fd/3 "/var/cache/minisgl"' in script
    assert "/home/me/minisgl" not in script


def test_the_api_server_has_a_certificate_for_every_way_to_it() -> None:
    assert {"IP:127.0.0.1", f"IP:{NODE_IP}", f"IP:{API_SERVICE_IP}", "DNS:kubernetes.default.svc"} <= set(
        pki.SERVER_NAMES
    )


@pytest.mark.parametrize("name", ["models", "minisgl-system", "monitoring"])
def test_the_strictest_pod_security_holds_in_our_namespaces(name: str) -> None:
    assert one("Namespace", name)["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_models_are_one_volume_many_may_read() -> None:
    volume, claim = one("PersistentVolume", "models"), one("PersistentVolumeClaim", "models")
    assert volume["spec"]["hostPath"]["path"] == str(MODELS)
    assert volume["spec"]["accessModes"] == claim["spec"]["accessModes"] == ["ReadOnlyMany"]
    assert (volume["spec"]["storageClassName"], claim["spec"]["storageClassName"]) == ("", "")
    assert claim["metadata"]["namespace"] == "models"


def test_pods_ask_the_name_service_where_it_is() -> None:
    assert one("Service", "kube-dns")["spec"]["clusterIP"] == DNS_IP == config.kubelet()["clusterDNS"][0]


def test_prometheus_finds_pods_by_the_labels_the_operator_sets() -> None:
    scrape = yaml.safe_load(one("ConfigMap", "prometheus")["data"]["prometheus.yml"])
    assert scrape["global"]["scrape_interval"] == "2s"
    labels = {rule.get("target_label") for rule in scrape["scrape_configs"][0]["relabel_configs"]}
    assert {"namespace", "pod", "model"} <= labels


def test_every_pod_of_the_cluster_drops_all_capabilities() -> None:
    for item in rendered():
        if item["kind"] == "Deployment":
            for container in item["spec"]["template"]["spec"]["containers"]:
                assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
                assert container["imagePullPolicy"] == "Never"


def test_the_images_have_names_by_content() -> None:
    for recipe in (images.runtime(), images.operator()):
        repository, _, tag = recipe.name().rpartition(":")
        assert repository == f"docker.io/local/{recipe.short}"
        assert len(tag) == 12


def test_a_recorded_process_counts_only_while_it_is_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(process, "PIDS", tmp_path)
    process.record("me", os.getpid())
    assert process.recorded("me") == os.getpid()
    pid, began, boot = (tmp_path / "me").read_text().split()
    (tmp_path / "me").write_text(f"{pid} {int(began) + 1} {boot}\n")
    assert process.recorded("me") is None


def test_a_process_nobody_recorded_is_not_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(process, "PIDS", tmp_path)
    assert process.recorded("stranger") is None
    process.end("stranger")
