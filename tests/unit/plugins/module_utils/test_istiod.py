"""Tests of Istiod over pods whose debug endpoints are given."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.meshfleet.istio.plugins.module_utils._istiod import ClosedError, Istiod, IstiodError
from ansible_collections.meshfleet.istio.plugins.module_utils._kube import ClusterError

CDS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
LDS = "type.googleapis.com/envoy.config.listener.v3.Listener"
RDS = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
HEALTH = "type.googleapis.com/istio.v1.HealthInformation"
ACKED = {"sent": "1", "acked": "1"}


def pod(name: str, phase: str = "Running", **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **metadata}, "status": {"phase": phase}}


# Not list[str]: in those classes, list is a method.
Command = list[str]


class Pods:
    """A cluster of istiod pods; ``answers``: what exec gives, one after the other, the last one for ever."""

    name = "hub"

    def __init__(self, pods: list[dict[str, Any]], *answers: Any) -> None:
        self.pods = pods
        self.answers = list(answers)
        self.calls: list[Any] = []

    def list(self, *arguments: Any, **selectors: Any) -> list[dict[str, Any]]:
        self.calls.append((*arguments, selectors))
        return self.pods

    def exec(self, name: str, namespace: str, container: str, command: Command) -> tuple[int, str, str]:
        self.calls.append((name, namespace, container, command))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, tuple):
            return answer
        return 0, json.dumps(answer), ""


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def __call__(self) -> float:
        return self.now


def clusterz(status: str) -> list[dict[str, str]]:
    return [
        {"id": "local-cluster", "secretName": "", "syncStatus": "synced"},
        {"id": "m1", "secretName": "istio-system/istio-remote-secret-m1", "syncStatus": status},
    ]


def istiod(cluster: Any, revision: str = "default") -> Istiod:
    time = Time()
    return Istiod(cluster, "istio-system", revision, sleep=time.sleep, clock=time)


def test_replicas_are_running_pods_that_stay() -> None:
    cluster = Pods([pod("b"), pod("a"), pod("c", "Pending"), pod("d", deletionTimestamp="2026-11-23T00:00:00Z")])
    assert istiod(cluster).replicas() == ["a", "b"]
    assert cluster.calls[0][-1] == {"label_selector": "app=istiod,istio.io/rev=default"}
    istiod(cluster, "").replicas()
    assert cluster.calls[1][-1] == {"label_selector": "app=istiod"}


def test_debug_asks_in_the_discovery_container() -> None:
    cluster = Pods([], {"x": 1})
    assert istiod(cluster).debug("a", "clusterz") == {"x": 1}
    command = ["pilot-discovery", "request", "GET", "/debug/clusterz"]
    assert cluster.calls == [("a", "istio-system", "discovery", command)]


@pytest.mark.parametrize(
    ("answer", "message"),
    [((1, "", "refused\n"), "does not answer /debug/x: refused"), ((0, "<html>", ""), "what is not JSON: '<html>'")],
)
def test_debug_without_an_answer(answer: tuple[int, str, str], message: str) -> None:
    with pytest.raises(IstiodError, match=message):
        istiod(Pods([], answer)).debug("a", "x")


def test_remote_clusters_of_each_replica() -> None:
    found = istiod(Pods([pod("a"), pod("b")], clusterz("synced"), None)).remote_clusters()
    assert [(entry["replica"], entry["id"], entry["secret_name"]) for entry in found] == [
        ("a", "local-cluster", ""),
        ("a", "m1", "istio-system/istio-remote-secret-m1"),
    ]


@pytest.mark.parametrize(
    ("resources", "synced", "types"),
    [
        ({CDS: ACKED, LDS: ACKED}, True, ("SYNCED", "SYNCED", "IGNORED")),
        ({CDS: ACKED, LDS: {"sent": "2", "acked": "1"}}, False, ("SYNCED", "STALE", "IGNORED")),
        ({CDS: ACKED, LDS: {**ACKED, "lastError": "bad"}}, False, ("SYNCED", "ERROR", "IGNORED")),
        ({CDS: ACKED, LDS: {}}, False, ("SYNCED", "NOT SENT", "IGNORED")),
        ({CDS: ACKED, LDS: ACKED, RDS: {}}, True, ("SYNCED", "SYNCED", "NOT SENT")),
        ({CDS: ACKED, LDS: ACKED, HEALTH: {}}, True, ("SYNCED", "SYNCED", "IGNORED")),
        ({CDS: {}}, False, ("NOT SENT", "IGNORED", "IGNORED")),
    ],
)
def test_proxies(resources: dict[str, Any], synced: bool, types: tuple[str, ...]) -> None:
    entry = {"proxy": "web-1.0.shop", "cluster_id": "m1", "istio_version": "1.29.1", "resources": resources}
    (proxy,) = istiod(Pods([pod("a")], [entry])).proxies()
    assert (proxy["name"], proxy["namespace"], proxy["cluster"]) == ("web-1.0", "shop", "m1")
    assert (proxy["istiod"], proxy["version"], proxy["synced"]) == ("a", "1.29.1", synced)
    assert (proxy["types"]["CDS"], proxy["types"]["LDS"], proxy["types"]["RDS"]) == types
    assert set(proxy["types"]) == {"CDS", "LDS", "EDS", "RDS"}


def test_proxies_of_an_old_istiod() -> None:
    entry = {"proxy": "a.b", "cluster_sent": "1", "cluster_acked": "1", "listener_sent": "2", "listener_acked": "1"}
    (proxy,) = istiod(Pods([pod("a")], [entry])).proxies()
    assert proxy["types"] == {"CDS": "SYNCED", "LDS": "STALE", "EDS": "IGNORED", "RDS": "IGNORED"}


def test_proxies_leaves_out_istioctl() -> None:
    entry = {"proxy": "istioctl", "resources": {"istio.io/debug": ACKED}}
    assert istiod(Pods([pod("a")], [entry, {"proxy": "x.y"}])).proxies() == []


def test_wait_synced_waits_for_every_replica() -> None:
    starting = ClusterError("not yet")
    cluster = Pods([pod("a"), pod("b")], clusterz("syncing"), starting, clusterz("synced"))
    assert istiod(cluster).wait_synced("m1", 5) == [
        {"replica": "a", "sync_status": "synced"},
        {"replica": "b", "sync_status": "synced"},
    ]


def test_wait_synced_timeout_names_each_state() -> None:
    cluster = Pods([pod("a")], clusterz("timeout"))
    with pytest.raises(IstiodError, match=r"m1 is not synced .* cluster hub after 3 s \(a: timeout\)\.") as raised:
        istiod(cluster).wait_synced("m1", 3)
    assert not isinstance(raised.value, ClosedError)
    with pytest.raises(IstiodError, match=r"\(a: unknown cluster\)"):
        istiod(cluster).wait_synced("m2", 3)
    with pytest.raises(IstiodError, match=r"a: no answer \(gone\)"):
        istiod(Pods([pod("a")], ClusterError("gone"))).wait_synced("m1", 3)


def test_wait_synced_without_istiod() -> None:
    with pytest.raises(IstiodError, match="No istiod with revision default runs in namespace istio-system"):
        istiod(Pods([])).wait_synced("m1", 1)


@pytest.mark.parametrize(("timeout", "seconds"), [(60, 10), (3, 3)])
def test_wait_synced_does_not_wait_for_a_closed_cluster(timeout: int, seconds: int) -> None:
    with pytest.raises(ClosedError, match=rf"after {seconds} s \(a: closed\)\. A rolling restart"):
        istiod(Pods([pod("a")], clusterz("closed"))).wait_synced("m1", timeout)


def test_wait_synced_outlives_a_passing_closed() -> None:
    cluster = Pods([pod("a")], clusterz("closed"), clusterz("syncing"), clusterz("synced"))
    assert istiod(cluster).wait_synced("m1", 60) == [{"replica": "a", "sync_status": "synced"}]
