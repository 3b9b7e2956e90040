"""One cluster: its node's files and processes, and what makes it ready to use."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from kubernetes import config, dynamic
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from lab import cgroups, images, network
from lab.build import Parts
from lab.errors import LabError
from lab.host import CACHE, run, say
from lab.topology import Cluster, Topology

SCRIPTS = Path(__file__).parent / "node"

CONTAINERD = """\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Without CAP_SYS_RESOURCE runc cannot lower oom_score_adj.
  restrict_oom_score_adj = true
"""

KUBEADM = """\
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {{advertiseAddress: {cluster.address}, bindPort: 6443}}
nodeRegistration:
  name: {cluster.name}
  criSocket: unix:///run/containerd/containerd.sock
  taints: []
  imagePullPolicy: Never
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
clusterName: {cluster.name}
kubernetesVersion: v{topology.kubernetes}
networking: {{podSubnet: {cluster.pods}, serviceSubnet: {cluster.services}}}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: [none]
failCgroupV1: false
failSwapOn: false
maxParallelImagePulls: 1
serializeImagePulls: true
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
evictionHard: {{nodefs.available: "1%", imagefs.available: "1%"}}
imageGCHighThresholdPercent: 100
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
conntrack: {{maxPerCore: 0, min: 0}}
"""

COREFILE = """\
.:53 {
    errors
    health
    ready
    kubernetes cluster.local clusterset.local in-addr.arpa ip6.arpa {
        multicluster clusterset.local
        fallthrough in-addr.arpa ip6.arpa
        ttl 5
    }
    cache 5
    loadbalance
}
"""


class Node:
    """A cluster of a lab, as files below the lab's state directory and processes in a cgroup."""

    def __init__(self, topology: Topology, cluster: Cluster) -> None:
        self.topology = topology
        self.cluster = cluster
        self.label = f"{topology.name}-{cluster.name}"
        self.directory = CACHE / "labs" / topology.name / cluster.name

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig that kubeadm wrote on the node."""
        return self.directory / "upper/etc/kubernetes/super-admin.conf"

    def running(self) -> bool:
        """True while any process of the node lives."""
        return bool(cgroups.processes(self.label))

    def start(self, parts: Parts, pause_image: str) -> None:
        """Starts the node's process tree; on a node that ran before, with what it had on its disk."""
        cgroups.remove(self.label)
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "kubeadm.yml").write_text(KUBEADM.format(cluster=self.cluster, topology=self.topology))
        (self.directory / "containerd.toml").write_text(CONTAINERD.format(pause=pause_image))
        only = str(self.topology.control_plane_only).lower()
        (self.directory / "env").write_text(
            f"NAME={self.cluster.name}\nADDRESS={self.cluster.address}\n"
            f"NODE_PODS={self.cluster.node_pods}\nCONTROL_PLANE_ONLY={only}\n"
        )
        if not self.topology.control_plane_only and not (self.directory / "containerd").exists():
            images.link(self.directory / "containerd")
        netns = network.namespace(self.topology, self.cluster)
        # `ip netns exec` would hide the cgroups behind a new /sys.
        namespaces = [
            "nsenter",
            f"--net=/run/netns/{netns}",
            "unshare",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--cgroup",
        ]
        binaries = [parts.kubernetes, *([parts.etcd] if self.topology.control_plane_only else [])]
        enter = [SCRIPTS / "enter.sh", self.directory, parts.node, *binaries]
        argv = [*namespaces, "--fork", "--kill-child", *map(str, enter)]
        cgroups.spawn(self.label, argv, self.directory / "node.log")

    def stop(self) -> None:
        """Ends every process of the node and removes its files; its mounts go with its processes."""
        cgroups.remove(self.label)
        shutil.rmtree(self.directory, ignore_errors=True)

    def api(self) -> dynamic.DynamicClient:
        """A dynamic client with the administrator's rights."""
        return dynamic.DynamicClient(config.new_client_from_config(str(self.kubeconfig)))

    def wait(self, what: str, ready: Callable[[], bool], timeout: float = 180) -> None:
        """Polls until `ready`; errors of an API server that is still starting count as not yet."""
        deadline = time.monotonic() + timeout
        cause = ""
        while True:
            try:
                if ready():
                    return
            except (ApiException, HTTPError, LabError, dynamic.exceptions.DynamicApiError) as error:
                cause = f": {error}"
            if not self.running():
                raise LabError(
                    f"{self.cluster.name}: the node ended; the end of {self.directory}/node.log:\n{self._log()}"
                )
            if time.monotonic() > deadline:
                raise LabError(f"{self.cluster.name}: no {what} after {timeout:.0f} s{cause}\n{self._log()}")
            time.sleep(0.3)

    def _log(self) -> str:
        log = self.directory / "node.log"
        return "\n".join(log.read_text().splitlines()[-15:]) if log.exists() else ""

    def finish(self, parts: Parts) -> None:
        """Waits for the API server and brings the cluster to where a user gets one: rights, CRDs, add-ons."""
        self.wait("kubeconfig", lambda: self.kubeconfig.exists())
        self.wait("API server", lambda: self._answers(parts))
        say(f"{self.cluster.name}: API server answers")
        api = self.api()
        for definition in self._definitions(parts):
            resource = api.resources.get(api_version=definition["apiVersion"], kind=definition["kind"])
            api.server_side_apply(
                resource, body=definition, namespace=definition["metadata"].get("namespace"),
                field_manager="lab", force_conflicts=True,
            )  # fmt: skip
        if not self.topology.control_plane_only:
            self._add_ons(api, parts)
            nodes = api.resources.get(api_version="v1", kind="Node")
            self.wait("Ready node", lambda: _is_ready(nodes.get(name=self.cluster.name)))
            deployments = api.resources.get(api_version="apps/v1", kind="Deployment")
            self.wait(
                "running CoreDNS",
                lambda: bool(deployments.get(name="coredns", namespace="kube-system").status.readyReplicas),
            )
        say(f"{self.cluster.name}: ready")

    def _answers(self, parts: Parts) -> bool:
        options = ["--request-timeout=5s", "get", "--raw=/readyz"]
        return run([parts.kubernetes / "kubectl", "--kubeconfig", self.kubeconfig, *options]) == "ok"

    def _definitions(self, parts: Parts) -> list[dict[str, Any]]:
        """CRDs, and the right that kubeadm's admin.conf and the API server's kubelet client need."""
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "kubeadm:cluster-admins"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "kubeadm:cluster-admins"}],
        }
        return [binding, *(yaml.safe_load(path.read_text()) for path in parts.crds)]

    def _add_ons(self, api: dynamic.DynamicClient, parts: Parts) -> None:
        """kube-proxy, and CoreDNS, which serves clusterset.local from ServiceImports (CoreDNS >= 1.12.2)."""
        rules = api.resources.get(api_version="rbac.authorization.k8s.io/v1", kind="ClusterRole")
        deployments = api.resources.get(api_version="apps/v1", kind="Deployment")
        try:
            deployments.get(name="coredns", namespace="kube-system")
        except dynamic.exceptions.NotFoundError:
            for add_on in ("kube-proxy", "coredns"):
                files: list[str | Path] = ["--config", self.directory / "kubeadm.yml", "--kubeconfig", self.kubeconfig]
                run([parts.kubernetes / "kubeadm", "init", "phase", "addon", add_on, *files])
        role = rules.get(name="system:coredns").to_dict()
        role["rules"] = [rule for rule in role["rules"] if rule["apiGroups"] != ["multicluster.x-k8s.io"]]
        role["rules"].append(
            {"apiGroups": ["multicluster.x-k8s.io"], "resources": ["serviceimports"], "verbs": ["list", "watch"]}
        )
        rules.replace(body=role)
        configs = api.resources.get(api_version="v1", kind="ConfigMap")
        configs.patch(name="coredns", namespace="kube-system", body={"data": {"Corefile": COREFILE}},
                      content_type="application/merge-patch+json")  # fmt: skip
        # The annotation makes a changed Corefile a new rollout, which is quicker than CoreDNS's own reload.
        template = {"metadata": {"annotations": {"lab/corefile": "multicluster"}}}
        deployments.patch(name="coredns", namespace="kube-system",
                          body={"spec": {"replicas": 1, "template": template}},
                          content_type="application/merge-patch+json")  # fmt: skip


def _is_ready(node: Any) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in node.status.conditions or [])


def write_kubeconfig(topology: Topology, nodes: list[Node], path: Path) -> None:
    """One kubeconfig with a context per cluster, named as the cluster, readable by its owner only."""
    merged: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", "current-context": topology.clusters[0].name}
    merged |= {"clusters": [], "users": [], "contexts": []}
    for node in nodes:
        own, name = yaml.safe_load(node.kubeconfig.read_text()), node.cluster.name
        merged["clusters"].append({"name": name, "cluster": own["clusters"][0]["cluster"]})
        merged["users"].append({"name": name, "user": own["users"][0]["user"]})
        merged["contexts"].append({"name": name, "context": {"cluster": name, "user": name}})
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        yaml.safe_dump(merged, file)
