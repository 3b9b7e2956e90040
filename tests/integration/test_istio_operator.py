"""meshfleet.istio.istio_operator on a real cluster, with an operator that needs no istiod."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import Lab

NAMESPACE = "test-istio-operator"


def spec(*gateways: str, port: int = 80) -> dict[str, Any]:
    """Gateways without pods: what they are is seen in their Services and Deployments."""
    ports = [{"name": "http", "port": port, "targetPort": 8080}]
    settings = {"replicaCount": 0, "service": {"type": "ClusterIP", "ports": ports}}
    return {
        "profile": "empty",
        "components": {
            "ingressGateways": [
                {"name": name, "namespace": NAMESPACE, "enabled": True, "k8s": settings} for name in gateways
            ],
        },
        "values": {"gateways": {"istio-ingressgateway": {"autoscaleEnabled": False}}},
    }


@pytest.fixture
def context(lab: Lab) -> Iterator[str]:
    """A managed cluster without the operator of these tests."""
    name = lab.managed[-1]

    def remove() -> None:
        lab.module("istio_operator", name, name="test", namespace=NAMESPACE, state="absent")
        lab.cluster(name).remove("v1", "Namespace", NAMESPACE)

    remove()
    yield name
    remove()


def services(lab: Lab, context: str) -> dict[str, int]:
    """The operator's Services on the cluster: their ports by name."""
    listed = lab.cluster(context).objects("v1", "Service", NAMESPACE)
    return {item["metadata"]["name"]: item["spec"]["ports"][0]["port"] for item in listed}


def test_twelve_steps(lab: Lab, context: str) -> None:
    def run(check: bool = False, **options: Any) -> dict[str, Any]:
        options = {"name": "test", "namespace": NAMESPACE, "istioctl_path": lab.istioctl, "wait": False, **options}
        result = lab.module("istio_operator", context, check=check, **options)
        assert not result["failed"], result["msg"]
        return result

    steps: list[tuple[dict[str, Any], dict[str, int]]] = [
        ({"spec": spec("one", "two")}, {"one": 80, "two": 80}),
        ({"spec": spec("one", port=81)}, {"one": 81}),
        ({"state": "absent"}, {}),
    ]
    before: dict[str, int] = {}
    for options, after in steps:
        assert run(check=True, **options)["changed"]
        assert services(lab, context) == before
        assert run(**options)["changed"]
        assert services(lab, context) == after
        assert not run(check=True, **options)["changed"]
        assert not run(**options)["changed"]
        assert services(lab, context) == after
        before = after
    deployments = lab.cluster(context).objects("apps/v1", "Deployment", NAMESPACE)
    assert deployments == []


def test_refused_by_the_api_server_changes_nothing(lab: Lab, context: str) -> None:
    wrong = spec("one", port=70000)
    options: dict[str, Any] = {"name": "test", "namespace": NAMESPACE, "istioctl_path": lab.istioctl}
    lab.cluster(context).create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    result = lab.module("istio_operator", context, spec=wrong, **options)
    assert result["failed"]
    assert "70000" in result["msg"]
    assert services(lab, context) == {}
    assert lab.cluster(context).objects("apps/v1", "Deployment", NAMESPACE) == []


def test_key_that_istioctl_does_not_know(lab: Lab, context: str) -> None:
    options: dict[str, Any] = {"name": "test", "namespace": NAMESPACE, "istioctl_path": lab.istioctl}
    result = lab.module("istio_operator", context, spec={"profile": "empty", "compnents": {}}, **options)
    assert result["failed"]
    assert "compnents" in result["msg"]
    assert lab.cluster(context).get("v1", "Namespace", NAMESPACE) is None
