"""The main job from empty clusters to the finished mesh, in the order in which these tests stand here."""

from __future__ import annotations

import re
import subprocess
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from tests.integration.conftest import Lab, Run

FRESH = {f"Namespace//{name}" for name in ("default", "kube-node-lease", "kube-public", "kube-system")}


@pytest.fixture(scope="module", autouse=True)
def empty_clusters(lab: Lab) -> None:
    """Clusters that hold nothing: new ones when somebody has used these."""
    for names in lab.names().values():
        used = {name for name in names if name.startswith("Namespace/")} != FRESH
        if used or any("istio" in name for name in names):
            lab.restart()
            return


def must_fail(lab: Lab, run: Run, before: dict[str, set[str]], *words: str) -> None:
    """The run failed, said all of these words, and changed nothing on any cluster."""
    assert run.code != 0, run.output
    missing = [word for word in words if word not in run.text]
    assert not missing, f"{missing} not in:\n{run.output}"
    assert not any(run.changed.values()), run.output
    assert lab.names() == before


def test_check_on_empty_clusters_changes_nothing(lab: Lab) -> None:
    before = lab.names()
    run = lab.site("--check", "--diff").must_succeed()
    assert set(run.stats) == set(lab.hosts)
    assert lab.names() == before


def test_wrong_context(lab: Lab) -> None:
    host = lab.managed[0]
    before = lab.names()
    run = lab.site("--limit", host, host_variables={host: {"kube_context": "nowhere"}})
    must_fail(lab, run, before, f"{host}: ", "kube_context", "no context nowhere", ", ".join(sorted(lab.hosts)))


def test_wrong_context_of_the_hub_stops_every_cluster(lab: Lab) -> None:
    before = lab.names()
    run = lab.site(host_variables={lab.hub: {"kube_context": "nowhere"}})
    must_fail(lab, run, before, f"{lab.hub}: ", "kube_context", "no context nowhere")
    assert all(counters["failed"] for counters in run.stats.values()), run.output


def test_unreachable_api_server(lab: Lab, tmp_path: Path) -> None:
    host = lab.managed[0]
    before = lab.names()
    document = yaml.safe_load(lab.kubeconfig.read_text())
    entry = next(item for item in document["clusters"] if item["name"] == host)
    entry["cluster"]["server"] = "https://127.0.0.1:1"
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(document))
    run = lab.site("--limit", host, kubeconfig=str(kubeconfig))
    must_fail(lab, run, before, f"{host}: ", "https://127.0.0.1:1", "kube_context", str(kubeconfig))


def test_missing_istioctl(lab: Lab) -> None:
    before = lab.names()
    run = lab.site(istioctl_path="/nowhere/istioctl")
    must_fail(lab, run, before, *(f"{host}: " for host in lab.hosts), "istioctl_path", "/nowhere/istioctl")


def test_two_clusters_with_one_name(lab: Lab) -> None:
    one, two = lab.managed[:2]
    before = lab.names()
    run = lab.site("--limit", f"{one},{two}", host_variables={two: {"cluster_name": one}})
    must_fail(lab, run, before, f"{one}: ", f"{two}: ", f"one cluster name, {one}", "Set cluster_name")


def test_two_hosts_with_one_cluster(lab: Lab) -> None:
    one, two = lab.managed[:2]
    before = lab.names()
    run = lab.site("--limit", f"{one},{two}", host_variables={two: {"kube_context": one}})
    must_fail(lab, run, before, f"{one}: its API server", f"{two}: its API server", "Set kube_context")


def test_overlapping_service_ranges(lab: Lab) -> None:
    one, two = lab.managed[:2]
    taken = lab.cluster(one).get("networking.k8s.io/v1", "ServiceCIDR", "kubernetes")
    assert taken
    start = taken["spec"]["cidrs"][0].split("/")[0]
    inside = f"{start}/24"
    definition: dict[str, Any] = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "overlap"},
        "spec": {"cidrs": [inside]},
    }
    before = lab.names()
    lab.cluster(two).create(definition)
    try:
        run = lab.site("--limit", f"{one},{two}")
    finally:
        lab.cluster(two).remove("networking.k8s.io/v1", "ServiceCIDR", "overlap")
    must_fail(lab, run, before, f"{one}: its address ranges", f"{two}: its address ranges", inside, "mesh_network")


def test_first_run_installs_the_mesh(lab: Lab) -> None:
    run = lab.site().must_succeed()
    assert all(run.changed.values()), run.output


def test_second_run_changes_nothing(lab: Lab) -> None:
    assert lab.site().must_succeed().changed == dict.fromkeys(lab.hosts, 0)


def test_check_on_the_finished_mesh_plans_nothing(lab: Lab) -> None:
    assert lab.site("--check", "--diff").must_succeed().changed == dict.fromkeys(lab.hosts, 0)


def gateway(lab: Lab) -> str:
    """URL of the ingress gateway: the hub's node and the port of the Service."""
    hub = lab.cluster(lab.hub)
    addresses = hub.objects("v1", "Node")[0]["status"]["addresses"]
    service = hub.get("v1", "Service", "istio-ingressgateway", "istio-system")
    assert service
    port = next(port["nodePort"] for port in service["spec"]["ports"] if port["port"] == 80)
    return f"http://{next(a['address'] for a in addresses if a['type'] == 'InternalIP')}:{port}"


def test_page_through_the_gateway_shows_reviews_v1_only(lab: Lab) -> None:
    url = f"{gateway(lab)}/productpage"
    seen: Counter[str] = Counter()
    for _request in range(20):
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 (http, to the lab)
            assert answer.status == 200
            page = answer.read().decode()
        assert "<title>Simple Bookstore App</title>" in page
        seen.update(re.findall(r"reviews-(v\d)-", page)[:1])
    assert seen == {"v1": 20}


def test_proxy_status_lists_every_proxy_of_its_cluster(lab: Lab) -> None:
    command = [lab.istioctl, "--kubeconfig", str(lab.kubeconfig), "--context", lab.hub, "proxy-status"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    proxies = [line.split()[:2] for line in output.splitlines()[1:]]
    found = sorted((re.sub(r"-[^-]*-[^-]*$", "", name.split(".")[0]), cluster) for name, cluster in proxies)
    cluster_name = {host: lab.variables[host].get("cluster_name", host) for host in lab.hosts}
    wanted = [("istio-ingressgateway", cluster_name[lab.hub])]
    for host in lab.managed:
        wanted += [(workload, cluster_name[host]) for workload in lab.variables[host].get("bookinfo_workloads", [])]
    assert found == sorted(wanted), output


def injector(lab: Lab, host: str) -> dict[str, Any]:
    """How a managed cluster's API server reaches the sidecar injector: `url` or `service`."""
    webhooks = lab.cluster(host).objects("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration")
    found: dict[str, Any] = next(item for item in webhooks if "sidecar-injector" in item["metadata"]["name"])
    reached: dict[str, Any] = found["webhooks"][0]["clientConfig"]
    return reached


def must_inject(lab: Lab, host: str) -> None:
    """A pod that is created now gets its sidecar and becomes ready."""
    cluster, app = lab.cluster(host), lab.variables[host]["bookinfo_workloads"][0].partition("-")[0]
    query = {"namespace": "istio-apps", "label_selector": f"app={app}"}
    old = {pod["metadata"]["name"] for pod in cluster.objects("v1", "Pod", **query)}
    assert old
    for name in old:
        cluster.delete("v1", "Pod", name, "istio-apps")
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        pods = [pod for pod in cluster.objects("v1", "Pod", **query) if pod["metadata"]["name"] not in old]
        for pod in pods:
            containers = pod["spec"]["containers"] + pod["spec"].get("initContainers", [])
            assert "istio-proxy" in [container["name"] for container in containers]
        conditions = [c for pod in pods for c in pod["status"].get("conditions", [])]
        if [c["status"] for c in conditions if c["type"] == "Ready"] == ["True"]:
            return
        time.sleep(1)
    pytest.fail(f"no new pod of {app} is ready on {host}")


def test_hosts_instead_of_service(lab: Lab) -> None:
    host = lab.managed[0]
    hosts = {host: {"istiod_access": "hosts"}}
    run = lab.site(host_variables=hosts).must_succeed()
    assert run.changed[host], run.output
    assert "url" in injector(lab, host)
    must_inject(lab, host)
    assert lab.site(host_variables=hosts).must_succeed().changed == dict.fromkeys(lab.hosts, 0)


def test_service_again(lab: Lab) -> None:
    host = lab.managed[0]
    run = lab.site().must_succeed()
    assert run.changed[host], run.output
    assert "service" in injector(lab, host)
    # No leftover of the other way may be what makes it work.
    assert lab.module("apiserver_hosts", host, state="absent")["changed"]
    must_inject(lab, host)
    assert lab.site().must_succeed().changed == dict.fromkeys(lab.hosts, 0)
