"""What a topology file may say, and what is said of one that cannot work."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lab.errors import LabError
from lab.topology import CHECKOUT, load

THREE = CHECKOUT / "lab/topologies/three-clusters.yml"


def test_the_default_lab_is_the_published_one() -> None:
    topology = load(THREE)
    assert [(c.name, c.address, c.pods, c.services) for c in topology.clusters] == [
        ("mcsdemo", "10.99.3.2", "10.128.0.0/14", "172.30.0.0/16"),
        ("mcsdemo1", "10.99.3.3", "10.132.0.0/14", "172.31.0.0/16"),
        ("mcsdemo2", "10.99.3.4", "10.140.0.0/14", "172.32.0.0/16"),
    ]
    assert topology.clusters[1].node_pods == "10.132.0.0/24"
    assert topology.inventory == CHECKOUT / "inventory"
    assert not topology.control_plane_only


@pytest.mark.parametrize("path", sorted((CHECKOUT / "lab/topologies").glob("*.yml")), ids=lambda path: path.stem)
def test_every_topology_has_an_inventory_and_names_itself(path: Path) -> None:
    topology = load(path)
    assert topology.name == path.stem
    assert topology.inventory.exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: mcsdemo1", "name: mcsdemo", "two clusters have one name"),
        ("name: mcsdemo1", "name: Mcs_Demo1", "'Mcs_Demo1' is not a DNS label"),
        (
            "172.31.0.0/16",
            "172.30.0.0/17",
            "mcsdemo.services 172.30.0.0/16 and mcsdemo1.services 172.30.0.0/17 overlap",
        ),
        ("10.99.3.0/24", "10.128.0.0/24", "network.subnet 10.128.0.0/24 and mcsdemo.pods 10.128.0.0/14 overlap"),
        ("172.31.0.0/16", "172.31.0.0/99", "mcsdemo1.services"),
        ("1.35.4", "1.2.3", "versions.kubernetes 1.2.3 is not in lab/versions; there is 1.35.4"),
        ("mflab3", "much-too-long", "'much-too-long' is longer than the 10 characters"),
        ("versions:", "variants:", "'versions' is missing"),
        ("network: {bridge", "network: [bridge", "topology"),
    ],
)
def test_bad_input(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "bad.yml"
    text = THREE.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(LabError) as error:
        load(path)
    assert str(path) in str(error.value)
    assert said in str(error.value)


def test_no_clusters(tmp_path: Path) -> None:
    path = tmp_path / "bad.yml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(THREE.read_text()), "clusters": []}))
    with pytest.raises(LabError, match="clusters is empty"):
        load(path)
