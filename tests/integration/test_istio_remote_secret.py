"""meshfleet.istio.istio_remote_secret between two real clusters, in a namespace that no istiod reads."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from tests.integration.conftest import Lab

NAMESPACE = "test-remote-secret"
ACCOUNT = "test-reader"


@pytest.fixture
def context(lab: Lab) -> Iterator[str]:
    """A managed cluster with a ServiceAccount, and the namespace on the hub."""
    name = lab.managed[-1]
    clusters = [lab.cluster(lab.hub), lab.cluster(name)]
    for cluster in clusters:
        cluster.remove("v1", "Namespace", NAMESPACE)
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    metadata = {"name": ACCOUNT, "namespace": NAMESPACE}
    clusters[1].create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    yield name
    for cluster in clusters:
        cluster.remove("v1", "Namespace", NAMESPACE)


def servers(lab: Lab) -> dict[str, str]:
    """What the remote secrets on the hub lead to: the API server by cluster name."""
    found = {}
    for secret in lab.cluster(lab.hub).objects("v1", "Secret", NAMESPACE, label_selector="istio/multiCluster=true"):
        for name, value in secret["data"].items():
            found[name] = yaml.safe_load(base64.b64decode(value))["clusters"][0]["cluster"]["server"]
    return found


def tokens(lab: Lab, context: str) -> list[str]:
    """Secrets on the managed cluster that hold the ServiceAccount's tokens."""
    secrets = lab.cluster(context).objects("v1", "Secret", NAMESPACE)
    return [item["metadata"]["name"] for item in secrets if item["type"] == "kubernetes.io/service-account-token"]


def test_twelve_steps(lab: Lab, context: str) -> None:
    def run(check: bool = False, **options: Any) -> dict[str, Any]:
        where: dict[str, Any] = {"hub": {"context": lab.hub}, "cluster_name": "spare", "namespace": NAMESPACE}
        options = {**where, "service_account": ACCOUNT, **options}
        result = lab.module("istio_remote_secret", context, check=check, **options)
        assert not result["failed"], result["msg"]
        return result

    document = yaml.safe_load(lab.kubeconfig.read_text())
    own = next(item["cluster"]["server"] for item in document["clusters"] if item["name"] == context)
    service = lab.cluster(context).get("v1", "Service", "kubernetes", "default")
    assert service
    # Another way to the same API server, which its certificate is good for.
    other = f"https://{service['spec']['clusterIP']}:443"
    steps: list[tuple[dict[str, Any], dict[str, str]]] = [
        ({}, {"spare": own}),
        ({"server": other}, {"spare": other}),
        ({"state": "absent"}, {}),
    ]
    before: dict[str, str] = {}
    for options, after in steps:
        held = tokens(lab, context)
        assert run(check=True, **options)["changed"]
        assert (servers(lab), tokens(lab, context)) == (before, held)
        assert run(**options)["changed"]
        assert servers(lab) == after
        assert bool(tokens(lab, context)) == bool(after)
        assert not run(check=True, **options)["changed"]
        assert not run(**options)["changed"]
        assert servers(lab) == after
        before = after


def test_missing_service_account(lab: Lab, context: str) -> None:
    where: dict[str, Any] = {"hub": {"context": lab.hub}, "cluster_name": "spare", "namespace": NAMESPACE}
    result = lab.module("istio_remote_secret", context, service_account="nobody", **where)
    assert result["failed"]
    assert "nobody" in result["msg"]
    assert servers(lab) == {}


def test_wrong_context_of_the_hub(lab: Lab, context: str) -> None:
    options: dict[str, Any] = {"cluster_name": "spare", "namespace": NAMESPACE, "service_account": ACCOUNT}
    result = lab.module("istio_remote_secret", context, hub={"context": "nowhere"}, **options)
    assert result["failed"]
    assert "hub.context" in result["msg"]
    assert tokens(lab, context) == []
