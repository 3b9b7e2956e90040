"""Tests of the facts about a cluster."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.meshfleet.istio.plugins.module_utils import _cluster_facts as facts
from ansible_collections.meshfleet.istio.plugins.module_utils._kube import ClusterError

FORBIDDEN = ClusterError("no", 403, "Forbidden")
REFUSAL = (
    'm1: cannot create Service: Service "x" is invalid: spec.clusterIPs: Invalid value: ["192.0.2.1"]: failed to'
    " allocate IP 192.0.2.1: the provided IP is not in the valid range. The range of valid IPs is 10.96.0.0/12 (422)"
)


class Cluster:
    """Kinds with their objects; an exception in their place is raised."""

    name, server, git_version, version = "m1", "https://m1:6443", "v1.35.4", (1, 35)

    def __init__(self, groups: set[str] | None = None, create: Any = None, **kinds: Any) -> None:
        self.groups = groups or set()
        self.kinds = kinds
        self.refusal = create
        self.asked: list[Any] = []

    def api_groups(self) -> set[str]:
        return self.groups

    def list(self, _api_version: str, kind: str) -> Any:
        found = self.kinds.get(kind, [])
        if isinstance(found, Exception):
            raise found
        return found

    def get(self, _api_version: str, kind: str, _name: str) -> Any:
        return self.list("", kind) or None

    def create(self, _definition: Any, dry_run: bool = False) -> None:
        assert dry_run
        if self.refusal:
            raise self.refusal

    def can(self, verb: str, group: str, resource: str, namespace: str | None = None) -> bool:
        self.asked.append((verb, group, resource, namespace))
        return resource != "clusterroles"


def cluster(*arguments: Any, **kinds: Any) -> Any:
    return Cluster(*arguments, **kinds)


@pytest.mark.parametrize(
    ("groups", "platform"),
    [
        ({"config.openshift.io"}, "openshift"),
        ({"security.openshift.io", "apps"}, "openshift"),
        ({"route.openshift.io", "apps"}, "kubernetes"),
        (set(), "kubernetes"),
    ],
)
def test_platform(groups: set[str], platform: str) -> None:
    assert facts.platform(groups) == platform


def test_service_ranges() -> None:
    cidrs = [{"spec": {"cidrs": ["172.31.0.0/16", "fd00::/112"]}}, {"spec": {}}]
    assert facts.service_ranges(cluster(ServiceCIDR=cidrs)) == ["172.31.0.0/16", "fd00::/112"]
    network = {"status": {"serviceNetwork": ["172.30.0.0/16"]}}
    assert facts.service_ranges(cluster({"config.openshift.io"}, Network=network)) == ["172.30.0.0/16"]
    refused = cluster(ServiceCIDR=FORBIDDEN, create=ClusterError(REFUSAL, 422, "Invalid"))
    assert facts.service_ranges(refused) == ["10.96.0.0/12"]


@pytest.mark.parametrize("refusal", [None, FORBIDDEN])
def test_service_ranges_unknown(refusal: ClusterError | None) -> None:
    assert facts.service_ranges(cluster({"config.openshift.io"}, Network=FORBIDDEN, create=refusal)) == []


def test_pod_ranges() -> None:
    nodes = [{"spec": {"podCIDRs": [f"10.132.{index}.0/24"]}} for index in (1, 0)] + [{"spec": {}}]
    assert facts.pod_ranges(cluster(Node=nodes)) == ["10.132.0.0/23"]
    network = {"status": {"clusterNetwork": [{"cidr": "10.128.0.0/14", "hostPrefix": 23}]}}
    assert facts.pod_ranges(cluster({"config.openshift.io"}, Network=network)) == ["10.128.0.0/14"]
    assert facts.pod_ranges(cluster(Node=FORBIDDEN)) == []


def test_cluster_facts() -> None:
    subject = cluster({"apps", "multicluster.x-k8s.io", "route.openshift.io"})
    found = facts.cluster_facts(subject, "mesh")
    assert (found["name"], found["version"], found["platform"]) == ("m1", "1.35", "kubernetes")
    assert (found["routes"], found["service_exports"]) == (True, True)
    assert found["api_groups"] == ["apps", "multicluster.x-k8s.io", "route.openshift.io"]
    assert found["rights"] == {
        "namespaces": True,
        "customresourcedefinitions": True,
        "clusterroles": False,
        "mutatingwebhookconfigurations": True,
        "secrets": True,
    }
    assert ("create", "", "secrets", "mesh") in subject.asked


def test_webhooks() -> None:
    def configuration(name: str, labels: dict[str, str] | None, client: dict[str, Any]) -> dict[str, Any]:
        return {
            "metadata": {"name": name, "labels": labels},
            "webhooks": [{"name": f"{name}.hook", "clientConfig": client, "failurePolicy": "Fail"}],
        }

    service = {"name": "istiod", "namespace": "istio-system"}
    found = facts.webhooks(
        cluster(
            MutatingWebhookConfiguration=[
                configuration("a", {"istio.io/rev": "default"}, {"url": "https://x", "caBundle": "QQ=="}),
                configuration("b", {"app": "sidecar-injector"}, {"service": service, "caBundle": ""}),
                configuration("c", {"app": "other"}, {}),
                configuration("d", None, {}),
            ]
        )
    )
    assert [(hook["configuration"], hook["ca_bundle"], hook["url"], hook["service"]) for hook in found] == [
        ("a", True, "https://x", None),
        ("b", False, None, service),
    ]
    assert (found[0]["name"], found[0]["revision"], found[0]["failure_policy"]) == ("a.hook", "default", "Fail")
