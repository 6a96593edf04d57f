"""Who may reach a model's pods and where they may connect to; and who is told to scrape them."""

from typing import Any

import pytest

from minisgl_operator import api
from minisgl_operator.objects import Child, Object
from support.cluster_objects import SETTINGS, build_children
from support.mistakes import fate

HUB = {"source": "hf://org/name"}
IN_SYSTEM = SETTINGS.model_copy(update={"lease_namespace": "minisgl-system"})
OPERATOR = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "minisgl-system"}},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "minisgl-operator"}},
}


def policy(**fields: Any) -> Object:
    found: Object = build_children(settings=IN_SYSTEM, **fields)[Child.NETWORK_POLICY]["spec"]
    return found


def peers(**fields: Any) -> list[Object]:
    (rule,) = policy(**fields)["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": "http"}]
    found: list[Object] = rule["from"]
    return found


def egress(**fields: Any) -> list[tuple[str, int]]:
    return [(port["protocol"], port["port"]) for rule in policy(**fields)["egress"] for port in rule["ports"]]


def test_a_policy_stands_by_default_and_governs_both_ways() -> None:
    found = policy()
    assert found["podSelector"] == {"matchLabels": api.selector("smollm2")}
    assert found["policyTypes"] == ["Ingress", "Egress"]


def test_by_default_the_models_namespace_and_the_operator_come_in() -> None:
    assert peers() == [{"podSelector": {}}, OPERATOR]


def test_given_peers_take_the_place_of_the_namespace_and_arrive_as_written() -> None:
    given = [
        {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {}},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
    ]
    assert peers(networkPolicy={"from": given}) == [*given, OPERATOR]


def test_prometheus_comes_in_where_it_is_to_scrape() -> None:
    assert peers(monitoring={"enabled": True})[-1] == {
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
    }


def test_no_rule_lets_everybody_in() -> None:
    for fields in ({}, {"monitoring": {"enabled": True}}, {"networkPolicy": {"egressPorts": [3128]}}):
        assert {} not in peers(**fields)
        assert peers(**fields)


def test_a_model_from_a_volume_reaches_dns_alone_and_one_from_the_hub_https_too() -> None:
    dns = [("UDP", 53), ("TCP", 53)]
    assert egress() == dns
    assert egress(model=HUB) == [*dns, ("TCP", 443)]
    assert egress(model=HUB, networkPolicy={"egressPorts": [3128, 443]}) == [*dns, ("TCP", 443), ("TCP", 3128)]


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("http://minio.storage.svc:9000", 9000), ("http://store", 80), ("https://store", 443), (None, 443)],
)
def test_a_model_from_an_object_store_reaches_the_port_of_its_endpoint(endpoint: str | None, port: int) -> None:
    model = {"source": "s3://bucket/prefix", "s3": {"endpoint": endpoint} if endpoint else {}}
    assert egress(model=model)[-1] == ("TCP", port)


@pytest.mark.parametrize(
    ("endpoint", "where"),
    [
        ("http://store:99999", "reconcile"),
        ("http://store:0", "reconcile"),
        ("http://[:::]:9000", "reconcile"),
        ("http://store:a:b", "apply"),
        ("http://[", "apply"),
        ("http://:9000", "apply"),
        ("http://[fd00::1]:9000", "built"),
    ],
)
def test_an_endpoint_that_has_no_address_is_told_as_such(endpoint: str, where: str) -> None:
    end = fate({"model": {"source": "s3://bucket/prefix", "s3": {"endpoint": endpoint}}})
    assert end.where == where
    assert where == "built" or "model.s3.endpoint" in end.message


def test_switched_off_there_is_no_policy() -> None:
    assert Child.NETWORK_POLICY not in build_children(networkPolicy={"enabled": False})


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"cidr": "300.0.0.0/8"}, "300.0.0.0/8"),
        ({"cidr": "10.0.0.0/33"}, "10.0.0.0/33"),
        ({"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}, "does not lie within 10.0.0.0/8"),
        ({"cidr": "10.0.0.0/8", "except": ["fd00::/16"]}, "does not lie within 10.0.0.0/8"),
    ],
)
def test_a_range_that_is_none_is_an_invalid_spec_before_anything_is_written(block: Object, text: str) -> None:
    end = fate({"model": HUB, "networkPolicy": {"from": [{"ipBlock": block}]}})
    assert end.where == "reconcile"
    assert text in end.message
    assert "spec.networkPolicy.from" in end.message


def test_a_monitor_is_made_where_it_is_asked_for() -> None:
    assert Child.POD_MONITOR not in build_children()
    wanted = {"enabled": True, "interval": "15s", "labels": {"release": "prometheus", api.MODEL_LABEL: "stolen"}}
    monitor = build_children(monitoring=wanted)[Child.POD_MONITOR]
    assert monitor["metadata"]["labels"] == api.labels("smollm2") | {"release": "prometheus"}
    assert monitor["spec"] == {
        "selector": {"matchLabels": api.selector("smollm2")},
        "podMetricsEndpoints": [{"port": "http", "path": "/metrics", "interval": "15s"}],
    }
