"""meshfleet.istio.apiserver_hosts on a real kube-apiserver pod."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import Lab

MARKER = "meshfleet.istio test"
NAMES = {"one.mesh.test": "192.0.2.1", "two.mesh.test": "192.0.2.2"}


@pytest.fixture
def apiserver(lab: Lab) -> Iterator[str]:
    """Context of a managed cluster whose hosts files have no block of these tests."""
    context = lab.managed[-1]
    lab.module("apiserver_hosts", context, state="absent", marker=MARKER)
    yield context
    lab.module("apiserver_hosts", context, state="absent", marker=MARKER)


def block(lab: Lab, context: str) -> list[str]:
    """The lines of these tests in the API server's hosts file, read through the API server itself."""
    pod = lab.cluster(context).objects("v1", "Pod", "kube-system", label_selector="component=kube-apiserver")[0]
    command = ["cat", "/etc/hosts"]
    text = lab.cluster(context).exec(pod["metadata"]["name"], "kube-system", "kube-apiserver", command)
    return [line for line in text.splitlines() if line.startswith("192.0.2.")]


def test_twelve_steps(lab: Lab, apiserver: str) -> None:
    def run(check: bool = False, **options: Any) -> dict[str, Any]:
        result = lab.module("apiserver_hosts", apiserver, check=check, marker=MARKER, **options)
        assert not result["failed"], result["msg"]
        return result

    steps: list[tuple[dict[str, Any], list[str]]] = [
        ({"hosts": NAMES}, ["192.0.2.1 one.mesh.test", "192.0.2.2 two.mesh.test"]),
        ({"hosts": {"one.mesh.test": "192.0.2.3"}}, ["192.0.2.3 one.mesh.test"]),
        ({"state": "absent"}, []),
    ]
    before: list[str] = []
    for options, after in steps:
        assert run(check=True, **options)["changed"]
        assert block(lab, apiserver) == before
        assert run(**options)["changed"]
        assert block(lab, apiserver) == after
        assert not run(check=True, **options)["changed"]
        assert not run(**options)["changed"]
        assert block(lab, apiserver) == after
        before = after


def test_bad_address_changes_nothing(lab: Lab, apiserver: str) -> None:
    result = lab.module("apiserver_hosts", apiserver, marker=MARKER, hosts={"one.mesh.test": "nowhere"})
    assert result["failed"]
    assert "one.mesh.test" in result["msg"]
    assert block(lab, apiserver) == []


def test_no_such_pods(lab: Lab, apiserver: str) -> None:
    result = lab.module("apiserver_hosts", apiserver, hosts=NAMES, label_selector="component=nothing")
    assert result["failed"]
    assert "label_selector" in result["msg"]
