"""Turns each ServiceExport of any cluster into a ServiceImport in all of them, as Submariner's Lighthouse does.

Run as `python -m lab.service_import TOPOLOGY`; ends with a signal. Of the multicluster API (KEP-1645) only what the lab
needs: the import's address is the exporting cluster's ClusterIP, which the flat network reaches from everywhere.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any

from kubernetes import dynamic
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from lab.cluster import Node
from lab.topology import load

API = "multicluster.x-k8s.io/v1alpha1"
FAULTS = (ApiException, dynamic.exceptions.DynamicApiError, HTTPError, OSError)
#: Seconds between two looks when nothing was heard; a watch that broke loses no more than this.
RESYNC = 5.0


class Importer:
    """The state of all clusters, compared whenever any of them changes."""

    def __init__(self, clients: dict[str, dynamic.DynamicClient]) -> None:
        self.clients = clients
        self.changed: queue.Queue[None] = queue.Queue()

    def watch(self, cluster: str, api_version: str, kind: str) -> None:
        """Says `changed` for each event of a kind, for ever."""
        while True:
            try:
                resource = self.clients[cluster].resources.get(api_version=api_version, kind=kind)
                for _ in self.clients[cluster].watch(resource, timeout=60):
                    self.changed.put(None)
            except FAULTS:
                time.sleep(1)

    def exports(self, cluster: str) -> dict[tuple[str, str], dict[str, Any]]:
        """Namespace and name of each exported Service of a cluster that has a ClusterIP, and its import."""
        api = self.clients[cluster].resources
        found = {}
        for export in api.get(api_version=API, kind="ServiceExport").get().items:
            key = (export.metadata.namespace, export.metadata.name)
            try:
                service = api.get(api_version="v1", kind="Service").get(namespace=key[0], name=key[1]).to_dict()["spec"]
            except dynamic.exceptions.NotFoundError:
                continue
            if service.get("clusterIP", "None") != "None":
                ports = [{k: p[k] for k in ("name", "port", "protocol") if k in p} for p in service["ports"]]
                found[key] = {"type": "ClusterSetIP", "ips": [service["clusterIP"]], "ports": ports}
        return found

    def apply(self, cluster: str, wanted: dict[tuple[str, str], dict[str, Any]]) -> None:
        """Makes the cluster's ServiceImports what is wanted, in the namespaces it has."""
        api = self.clients[cluster].resources
        imports = api.get(api_version=API, kind="ServiceImport")
        namespaces = {item.metadata.name for item in api.get(api_version="v1", kind="Namespace").get().items}
        present = {
            (i["metadata"]["namespace"], i["metadata"]["name"]): i["spec"] for i in imports.get().to_dict()["items"]
        }
        for key, spec in wanted.items():
            old = present.get(key)
            if key[0] in namespaces and (old is None or {k: old.get(k) for k in spec} != spec):
                body = {"apiVersion": API, "kind": "ServiceImport",
                        "metadata": {"namespace": key[0], "name": key[1]}, "spec": spec}  # fmt: skip
                self.clients[cluster].server_side_apply(
                    imports, body=body, namespace=key[0], field_manager="lab", force_conflicts=True
                )
                print(f"{cluster}: {key[0]}/{key[1]} is {spec['ips'][0]}", flush=True)
        for key in present.keys() - wanted.keys():
            imports.delete(namespace=key[0], name=key[1])
            print(f"{cluster}: {key[0]}/{key[1]} is gone", flush=True)

    def run(self) -> None:
        """Watches every cluster and reconciles after each change; a cluster that does not answer holds up no other."""
        for cluster in self.clients:
            for api_version, kind in ((API, "ServiceExport"), ("v1", "Service"), ("v1", "Namespace")):
                threading.Thread(target=self.watch, args=(cluster, api_version, kind), daemon=True).start()
        while True:
            self.reconcile()
            try:
                self.changed.get(timeout=RESYNC)
                while not self.changed.empty():
                    self.changed.get_nowait()
            except queue.Empty:
                pass

    def reconcile(self) -> None:
        """One comparison of all clusters. The first cluster in the topology wins where two export one name."""
        wanted: dict[tuple[str, str], dict[str, Any]] = {}
        complete = True
        for cluster in self.clients:
            try:
                wanted = self.exports(cluster) | wanted
            except FAULTS as error:
                complete = False
                print(f"{cluster}: {error}", flush=True)
        if not complete:
            return  # an import is withdrawn only when every cluster was asked
        for cluster in self.clients:
            try:
                self.apply(cluster, wanted)
            except FAULTS as error:
                print(f"{cluster}: {error}", flush=True)


def main() -> None:
    """Entry point."""
    topology = load(Path(sys.argv[1]))
    nodes = [Node(topology, cluster) for cluster in topology.clusters]
    Importer({n.cluster.name: n.api() for n in nodes}).run()


if __name__ == "__main__":
    main()
