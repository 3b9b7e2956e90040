"""The flat network that Submariner gives, as a bridge, a network namespace per node, and routes."""

from __future__ import annotations

import json
from typing import Any

from lab.host import run
from lab.topology import Cluster, Topology


def namespace(topology: Topology, cluster: Cluster) -> str:
    """Name of the node's network namespace."""
    return f"{topology.name}-{cluster.name}"


def interface(topology: Topology, cluster: Cluster) -> str:
    """Name of the node's interface on this machine's side."""
    return f"{topology.bridge}-{cluster.index}"


def _exists(kind: str, name: str) -> bool:
    listed: list[dict[str, Any]] = json.loads(run(["ip", "-json", *kind.split(), "show"]) or "[]")
    return any(name in (item.get("ifname"), item.get("name")) for item in listed)


def up(topology: Topology) -> None:
    """Creates what is missing; a second call changes nothing."""
    if not _exists("link", topology.bridge):
        run(["ip", "link", "add", topology.bridge, "type", "bridge"])
    run(["ip", "address", "replace", f"{topology.gateway}/{topology.subnet.prefixlen}", "dev", topology.bridge])
    run(["ip", "link", "set", topology.bridge, "up"])
    for cluster in topology.clusters:
        _join(topology, cluster)


def _join(topology: Topology, cluster: Cluster) -> None:
    netns, veth = namespace(topology, cluster), interface(topology, cluster)
    if not _exists("netns", netns):
        if _exists("link", veth):  # its other end is in a namespace that lost its name
            run(["ip", "link", "delete", veth])
        run(["ip", "netns", "add", netns])
    if not _exists("link", veth):
        run(["ip", "link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", netns])
    run(["ip", "link", "set", veth, "master", topology.bridge, "up"])
    inside = ["ip", "-netns", netns]
    run([*inside, "address", "replace", f"{cluster.address}/{topology.subnet.prefixlen}", "dev", "eth0"])
    run([*inside, "link", "set", "lo", "up"])
    run([*inside, "link", "set", "eth0", "up"])
    # kubelet and kubeadm look for a default route; this machine forwards nothing for it.
    run([*inside, "route", "replace", "default", "via", topology.gateway])
    for other in topology.clusters:
        if other != cluster:
            for network in (other.pods, other.services):
                run([*inside, "route", "replace", network, "via", other.address])


def down(topology: Topology) -> None:
    """Removes every namespace and interface of the lab, also those of a start that was interrupted."""
    for cluster in topology.clusters:
        # The interface first: without its name the namespace takes both ends of it along, some time later.
        if _exists("link", interface(topology, cluster)):
            run(["ip", "link", "delete", interface(topology, cluster)])
        if _exists("netns", namespace(topology, cluster)):
            run(["ip", "netns", "delete", namespace(topology, cluster)])
    if _exists("link", topology.bridge):
        run(["ip", "link", "delete", topology.bridge])
