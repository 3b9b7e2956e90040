"""Tests of waiting, and of the reasons it gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.meshfleet.istio.plugins.module_utils import _wait
from ansible_collections.meshfleet.istio.plugins.module_utils._wait import NotReadyError, Waiter

Object = dict[str, Any]
ROLLED_OUT = {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}


def deployment(**status: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "istiod", "namespace": "istio-system", "generation": 2, "uid": "d"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "istiod"}},
            "template": {"metadata": {"labels": {"app": "istiod", "istio": "pilot"}}},
        },
        "status": status,
    }


def daemon_set(**status: Any) -> Object:
    return {**deployment(**status), "kind": "DaemonSet"}


def pod(name: str = "istiod-1", **status: Any) -> Object:
    metadata = {"name": name, "namespace": "istio-system", "labels": {"app": "istiod"}, "uid": name}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": {"phase": "Pending", **status}}


def event(uid: str, reason: str, message: str, kind: str = "Warning") -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{uid}-{reason}", "namespace": "istio-system"},
        "involvedObject": {"uid": uid},
        "reason": reason,
        "message": message,
        "type": kind,
    }


def webhooks(*ca_bundles: str) -> Object:
    hooks = [{"name": f"w{number}", "clientConfig": {"caBundle": value}} for number, value in enumerate(ca_bundles)]
    metadata = {"name": "istio-sidecar-injector"}
    return {"apiVersion": "v1", "kind": "MutatingWebhookConfiguration", "metadata": metadata, "webhooks": hooks}


def service(**selector: str) -> Object:
    metadata = {"name": "istiod", "namespace": "istio-system"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"selector": selector or None}}


def reason(cluster: Any, *objects: Object) -> str:
    for item in objects:
        cluster.edit("test", item)
    with pytest.raises(NotReadyError) as raised:
        Waiter(cluster, 0.1).ready([objects[0]])
    return str(raised.value)


@pytest.mark.parametrize(
    ("workload", "expected"),
    [
        (deployment(**ROLLED_OUT), True),
        (deployment(**{**ROLLED_OUT, "observedGeneration": 1}), False),
        (deployment(**{**ROLLED_OUT, "updatedReplicas": 0}), False),
        (deployment(**{**ROLLED_OUT, "availableReplicas": 0}), False),
        (deployment(**{**ROLLED_OUT, "replicas": 2}), False),
        (deployment(), False),
        (daemon_set(observedGeneration=2, desiredNumberScheduled=2, updatedNumberScheduled=2, numberAvailable=2), True),
        (
            daemon_set(observedGeneration=2, desiredNumberScheduled=2, updatedNumberScheduled=1, numberAvailable=2),
            False,
        ),
        (
            daemon_set(observedGeneration=2, desiredNumberScheduled=2, updatedNumberScheduled=2, numberAvailable=1),
            False,
        ),
        (daemon_set(observedGeneration=2, desiredNumberScheduled=0), True),
        (daemon_set(), False),
    ],
)
def test_rolled_out(workload: Object, expected: bool) -> None:
    assert _wait.rolled_out(workload) is expected


def test_a_rendered_workload_says_nothing_about_the_cluster() -> None:
    rendered = deployment()
    del rendered["status"], rendered["metadata"]["generation"]
    assert not _wait.rolled_out(rendered)


def test_ready_returns_when_all_is(cluster: Any) -> None:
    for item in (deployment(**ROLLED_OUT), webhooks("Zm9v")):
        cluster.edit("test", item)
    Waiter(cluster, 5).ready([deployment(), webhooks("")])


def test_ready_watches_until_it_is(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def watch(*_arguments: Any) -> Iterator[Object]:
        yield deployment(observedGeneration=1)
        yield deployment(**ROLLED_OUT)
        raise AssertionError("watched on")

    monkeypatch.setattr(cluster, "watch", watch)
    Waiter(cluster, 5).ready([deployment()])


def test_settled_asks_only_for_what_is_not_ready(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "watch", None)
    Waiter(cluster, 5).ready([deployment(**ROLLED_OUT), webhooks("Zm9v"), service(app="istiod")], settled=True)


def test_missing_ca_bundle(cluster: Any) -> None:
    assert "has not written the caBundle of w1" in reason(cluster, webhooks("Zm9v", ""))
    Waiter(cluster, 0.1).ready([webhooks("")], ca_bundle=False)


def test_object_that_is_gone(cluster: Any) -> None:
    with pytest.raises(
        NotReadyError, match=r"Deployment istio-system/istiod is not ready after 0.1 s .*does not exist"
    ):
        Waiter(cluster, 0.1).ready([deployment()])
    with pytest.raises(NotReadyError, match=r"does not exist"):
        Waiter(cluster, 0.1).ready([webhooks("")])


def test_image_that_cannot_be_pulled(cluster: Any) -> None:
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
    status: Object = {
        "containerStatuses": [{"name": "discovery", "image": "docker.io/istio/pilot:nope", "state": state}]
    }
    text = reason(cluster, deployment(), pod(**status))
    assert "pod istiod-1 cannot get the image docker.io/istio/pilot:nope: Back-off pulling image" in text


def test_pod_that_cannot_be_scheduled(cluster: Any) -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes: 1 Insufficient cpu."}
    assert "cannot be scheduled: 0/1 nodes: 1 Insufficient cpu." in reason(
        cluster, deployment(), pod(conditions=[condition])
    )


def test_crash_with_its_last_line(cluster: Any) -> None:
    cluster.logs["istiod-1"] = "fatal: no certificate"
    crashed = {
        "name": "discovery",
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
        "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
    }
    text = reason(cluster, deployment(), pod(containerStatuses=[crashed]))
    assert "the container discovery crashed (Error, exit code 1); its last line: fatal: no certificate" in text


def test_crash_without_a_log(cluster: Any) -> None:
    crashed = {"name": "c", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
    assert "(OOMKilled, exit code 137); its last line: (none)" in reason(
        cluster, deployment(), pod(initContainerStatuses=[crashed])
    )


def test_waiting_container(cluster: Any) -> None:
    state = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}}
    assert 'CreateContainerConfigError: secret "x" not found' in reason(
        cluster, deployment(), pod(containerStatuses=[{"name": "c", "state": state}])
    )


def test_events_of_a_pod(cluster: Any) -> None:
    normal = event("istiod-1", "Pulled", "fine", "Normal")
    sandbox = event("istiod-1", "FailedCreatePodSandBox", "plugin istio-cni failed")
    other = event("other", "FailedMount", "not ours")
    waiting: Object = {"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ContainerCreating"}}}]}
    text = reason(cluster, deployment(), pod(**waiting), normal, other, sandbox)
    assert text.endswith("pod istiod-1: FailedCreatePodSandBox: plugin istio-cni failed")


def test_pod_without_any_hint_and_pods_that_are_fine(cluster: Any) -> None:
    fine = pod("fine", phase="Running", conditions=[{"type": "Ready", "status": "True"}])
    slow = pod("slow", phase="Running", containerStatuses=[{"name": "discovery", "ready": False, "state": {}}])
    assert reason(cluster, deployment(), fine, slow).endswith("pod slow is Running, not ready: discovery")


def test_more_pods_than_are_told(cluster: Any) -> None:
    pods = [pod(f"p{number}") for number in range(5)]
    assert reason(cluster, deployment(), *pods).endswith("no container yet; and 2 more")


def test_no_pods_at_all(cluster: Any) -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    assert reason(cluster, deployment(conditions=[failure])).endswith(": exceeded quota")


def test_no_pods_and_no_condition(cluster: Any) -> None:
    assert reason(cluster, daemon_set(desiredNumberScheduled=2)).endswith("0 of 2 pods are available.")
    assert reason(cluster, deployment()).endswith("0 of 1 pods are available.")
    failed = event("d", "FailedCreate", "failed calling webhook")
    assert reason(cluster, daemon_set(), failed).endswith("FailedCreate: failed calling webhook")


@pytest.mark.parametrize(
    ("selector", "ready", "fails"),
    [
        ({"app": "istiod"}, True, False),
        ({"app": "istiod"}, False, True),
        ({"app": "x"}, False, False),
        ({}, False, False),
    ],
)
def test_endpoints_are_waited_for_where_a_deployment_makes_them(
    cluster: Any, monkeypatch: pytest.MonkeyPatch, selector: dict[str, str], ready: bool, fails: bool
) -> None:
    cluster.edit("test", deployment(**ROLLED_OUT))
    real = cluster.watch

    def watch(version: str, kind: str, *rest: Any) -> Iterator[Object]:
        if kind == "EndpointSlice":
            assert rest[-1] == "kubernetes.io/service-name=istiod"
            return iter([{"endpoints": None}, {"endpoints": [{"conditions": {"ready": ready}}]}])
        return real(version, kind, *rest)  # type: ignore[no-any-return]

    monkeypatch.setattr(cluster, "watch", watch)
    monkeypatch.setattr(cluster, "serves", lambda *_kind: True)
    waiter = Waiter(cluster, 0.1)
    if fails:
        with pytest.raises(NotReadyError, match=r"Service istio-system/istiod has no ready endpoint"):
            waiter.ready([deployment(), service(**selector)])
    else:
        waiter.ready([deployment(), service(**selector)])


def test_gone(cluster: Any) -> None:
    Waiter(cluster, 0).gone([deployment(), webhooks()])
    cluster.edit("test", deployment())
    with pytest.raises(NotReadyError, match=r"Deployment istio-system/istiod is still being deleted"):
        Waiter(cluster, -1).gone([deployment()])
