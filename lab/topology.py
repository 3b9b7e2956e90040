"""Which clusters a lab has: reads and checks a topology file."""

from __future__ import annotations

import ipaddress
import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab.errors import LabError

CHECKOUT = Path(__file__).resolve().parent.parent
VERSIONS = CHECKOUT / "lab" / "versions"


@dataclass(frozen=True)
class Cluster:
    """One single-node cluster. `address` is its node's on the lab's bridge, `index` its place in the file from 0."""

    name: str
    index: int
    address: str
    pods: str
    services: str

    @property
    def node_pods(self) -> str:
        """The /24 of the pod range that the one node hands out (the ptp plugin's host-local range)."""
        return str(next(ipaddress.IPv4Network(self.pods).subnets(new_prefix=24)))


@dataclass(frozen=True)
class Topology:
    """A lab as its file describes it."""

    name: str
    kubernetes: str
    istio: str
    bridge: str
    subnet: ipaddress.IPv4Network
    inventory: Path
    control_plane_only: bool
    clusters: tuple[Cluster, ...]

    @property
    def gateway(self) -> str:
        """This machine's address on the bridge."""
        return str(self.subnet[1])


def _require(data: Any, key: str, where: str) -> Any:
    if not isinstance(data, dict) or key not in data:
        raise LabError(f"{where}: '{key}' is missing")
    return data[key]


def _network(text: Any, where: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(text)
    except ValueError as error:
        raise LabError(f"{where}: {error}") from error


def _version(kind: str, version: str, where: str) -> str:
    if not (VERSIONS / f"{kind}-{version}").is_dir():
        known = ", ".join(sorted(p.name.removeprefix(f"{kind}-") for p in VERSIONS.glob(f"{kind}-*")))
        raise LabError(f"{where}: versions.{kind} {version} is not in lab/versions; there is {known}")
    return version


def load(path: Path) -> Topology:
    """Reads a topology file; raises LabError naming the file and the key for anything that cannot work."""
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise LabError(f"topology {path}: {error}") from error
    where = str(path)
    versions, network = _require(data, "versions", where), _require(data, "network", where)
    subnet = _network(_require(network, "subnet", where), f"{where}: network.subnet")
    bridge = str(_require(network, "bridge", where))
    if len(bridge) > 10:
        raise LabError(f"{where}: network.bridge '{bridge}' is longer than the 10 characters an interface name leaves")
    clusters, ranges = [], {"network.subnet": subnet}
    for index, item in enumerate(_require(data, "clusters", where)):
        name = str(_require(item, "name", f"{where}: clusters[{index}]"))
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name):
            raise LabError(f"{where}: cluster name '{name}' is not a DNS label")
        for kind in ("pods", "services"):
            ranges[f"{name}.{kind}"] = _network(_require(item, kind, f"{where}: {name}"), f"{where}: {name}.{kind}")
        clusters.append(Cluster(name, index, str(subnet[2 + index]), item["pods"], item["services"]))
    if not clusters:
        raise LabError(f"{where}: clusters is empty")
    if len({c.name for c in clusters}) < len(clusters):
        raise LabError(f"{where}: two clusters have one name")
    for (a, x), (b, y) in itertools.combinations(ranges.items(), 2):
        if x.overlaps(y):
            raise LabError(f"{where}: {a} {x} and {b} {y} overlap")
    return Topology(
        name=str(_require(data, "name", where)),
        kubernetes=_version("kubernetes", str(_require(versions, "kubernetes", where)), where),
        istio=_version("istio", str(_require(versions, "istio", where)), where),
        bridge=bridge,
        subnet=subnet,
        inventory=CHECKOUT / data.get("inventory", "inventory"),
        control_plane_only=bool(data.get("control_plane_only", False)),
        clusters=tuple(clusters),
    )
