# Copyright: (c) 2026, meshfleet.istio contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What a cluster is and allows, as far as a mesh cares. Internal use only."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any

from ansible_collections.meshfleet.istio.plugins.module_utils._kube import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ansible_collections.meshfleet.istio.plugins.module_utils._kube import Cluster

# Either group is OpenShift's own. route.openshift.io alone is not: the CRD is installed on other Kubernetes, too.
OPENSHIFT_GROUPS = {"config.openshift.io", "security.openshift.io"}
# An address for documentation (RFC 5737), so hardly in any Service range.
IMPOSSIBLE_ADDRESS = "192.0.2.1"

# What an installation creates: name in the result -> API group and resource.
RIGHTS = {
    "namespaces": ("", "namespaces"),
    "customresourcedefinitions": ("apiextensions.k8s.io", "customresourcedefinitions"),
    "clusterroles": ("rbac.authorization.k8s.io", "clusterroles"),
    "mutatingwebhookconfigurations": ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
}


def cluster_facts(cluster: Cluster, namespace: str) -> dict[str, Any]:
    """The ``cluster`` part of istio_mesh_info. ``namespace``: Istio's."""
    groups = cluster.api_groups()
    return {
        "name": cluster.name,
        "server": cluster.server,
        "git_version": cluster.git_version,
        "version": ".".join(str(number) for number in cluster.version),
        "platform": platform(groups),
        "api_groups": sorted(groups),
        "routes": "route.openshift.io" in groups,
        "service_exports": "multicluster.x-k8s.io" in groups,
        "service_ranges": service_ranges(cluster),
        "pod_ranges": pod_ranges(cluster),
        "rights": rights(cluster, namespace),
    }


def platform(groups: set[str]) -> str:
    """``openshift`` or ``kubernetes``."""
    return "openshift" if groups & OPENSHIFT_GROUPS else "kubernetes"


def service_ranges(cluster: Cluster) -> list[str]:
    """The CIDR ranges of Services; [] when these credentials cannot find out.

    The ServiceCIDR API (Kubernetes 1.33), else OpenShift's network configuration, else the API server's own error for a
    Service (dry run) with an address that is in no range.
    """
    try:
        cidrs = cluster.list("networking.k8s.io/v1", "ServiceCIDR")
    except ClusterError:
        cidrs = []
    ranges = [cidr for item in cidrs for cidr in item.get("spec", {}).get("cidrs") or []]
    return _merged(ranges or _openshift_network(cluster, "serviceNetwork") or _range_from_refusal(cluster))


def pod_ranges(cluster: Cluster) -> list[str]:
    """The CIDR ranges of pods, from OpenShift's network configuration or the nodes; [] when neither tells."""
    ranges = [entry["cidr"] for entry in _openshift_network(cluster, "clusterNetwork") if entry.get("cidr")]
    if not ranges:
        try:
            nodes = cluster.list("v1", "Node")
        except ClusterError:
            nodes = []
        ranges = [cidr for node in nodes for cidr in node.get("spec", {}).get("podCIDRs") or []]
    return _merged(ranges)


def rights(cluster: Cluster, namespace: str) -> dict[str, bool]:
    """Whether these credentials may create what an installation creates."""
    allowed = {name: cluster.can("create", group, resource) for name, (group, resource) in RIGHTS.items()}
    return {**allowed, "secrets": cluster.can("create", "", "secrets", namespace)}


def webhooks(cluster: Cluster) -> list[dict[str, Any]]:
    """Each webhook of Istio's sidecar injectors; see RETURN of istio_mesh_info."""
    found = []
    for item in cluster.list("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"):
        labels = item["metadata"].get("labels") or {}
        if "istio.io/rev" not in labels and labels.get("app") != "sidecar-injector":
            continue
        for webhook in item.get("webhooks") or []:
            client = webhook.get("clientConfig") or {}
            found.append(
                {
                    "configuration": item["metadata"]["name"],
                    "name": webhook["name"],
                    "revision": labels.get("istio.io/rev", ""),
                    "ca_bundle": bool(client.get("caBundle")),
                    "url": client.get("url"),
                    "service": client.get("service"),
                    "failure_policy": webhook.get("failurePolicy", ""),
                }
            )
    return found


def _openshift_network(cluster: Cluster, field: str) -> list[Any]:
    if "config.openshift.io" not in cluster.api_groups():
        return []
    try:
        network = cluster.get("config.openshift.io/v1", "Network", "cluster") or {}
    except ClusterError:
        return []
    return list((network.get("status") or {}).get(field) or [])


def _range_from_refusal(cluster: Cluster) -> list[str]:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"generateName": "service-range-", "namespace": "default"},
        "spec": {"clusterIP": IMPOSSIBLE_ADDRESS, "ports": [{"port": 443}]},
    }
    try:
        cluster.create(service, dry_run=True)
    except ClusterError as error:
        found = re.search(r"range of valid IPs is ([0-9a-fA-F.:]+/\d+)", str(error))
        return [found.group(1)] if found else []
    return []


def _merged(ranges: Iterable[str]) -> list[str]:
    """Sorted, with neighbours (the ranges of single nodes) put together."""
    networks = [ipaddress.ip_network(cidr, strict=False) for cidr in ranges]
    four = ipaddress.collapse_addresses(item for item in networks if isinstance(item, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(item for item in networks if isinstance(item, ipaddress.IPv6Network))
    return [str(network) for network in [*four, *six]]
