"""The lab as the tests see it: playbooks and modules to run, and clusters to look into.

TOPOLOGY in the environment names another lab's file, as for make.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import config
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import NotFoundError, ResourceNotFoundError
from kubernetes.stream import ws_client

from lab.host import CACHE

CHECKOUT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
TOPOLOGY = os.environ.get("TOPOLOGY", "lab/topologies/three-clusters.yml")

_RECAP = re.compile(r"^(\S+)\s+: (ok=.*)$", re.MULTILINE)


@dataclass
class Run:
    """A playbook's end: return code, all it printed, and the recap's counters by host."""

    code: int
    output: str
    stats: dict[str, dict[str, int]] = field(default_factory=dict)

    def must_succeed(self) -> Run:
        """Fails the test, with the output, unless every host came through."""
        assert self.code == 0, self.output
        return self

    @property
    def changed(self) -> dict[str, int]:
        """Number of changes by host."""
        return {host: counters["changed"] for host, counters in self.stats.items()}

    @property
    def text(self) -> str:
        """The output with every run of white space as one blank, so that wrapped messages can be searched."""
        return " ".join(self.output.split())


class Cluster:
    """One cluster's objects as plain dictionaries."""

    def __init__(self, kubeconfig: Path, context: str) -> None:
        self.context = context
        self._client = DynamicClient(config.new_client_from_config(str(kubeconfig), context))

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """An object; None when it, or its kind, is not there."""
        try:
            resource = self._client.resources.get(api_version=api_version, kind=kind)
            found: dict[str, Any] = resource.get(name=name, namespace=namespace).to_dict()
        except (NotFoundError, ResourceNotFoundError):
            return None
        return found

    def objects(self, api_version: str, kind: str, namespace: str | None = None, **query: Any) -> Any:
        """A list of objects."""
        resource = self._client.resources.get(api_version=api_version, kind=kind)
        return resource.get(namespace=namespace, **query).to_dict()["items"]

    def create(self, definition: dict[str, Any]) -> None:
        """Creates an object."""
        resource = self._client.resources.get(api_version=definition["apiVersion"], kind=definition["kind"])
        resource.create(body=definition, namespace=definition["metadata"].get("namespace"))

    def delete(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> None:
        """Deletes an object and what it owns; none is well, too."""
        resource = self._client.resources.get(api_version=api_version, kind=kind)
        with contextlib.suppress(NotFoundError):
            resource.delete(name=name, namespace=namespace, body={"propagationPolicy": "Foreground"})

    def remove(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> None:
        """Deletes an object and waits until it is gone."""
        self.delete(api_version, kind, name, namespace)
        deadline = time.monotonic() + 60
        while self.get(api_version, kind, name, namespace):
            assert time.monotonic() < deadline, f"{self.context}: {kind} {name} does not go away"
            time.sleep(0.5)

    def exec(self, pod: str, namespace: str, container: str, command: list[str]) -> str:
        """What a command in a container prints."""
        configuration = self._client.client.configuration
        url = f"{configuration.host}/api/v1/namespaces/{namespace}/pods/{pod}/exec"
        query = [("container", container), ("stdout", "true"), *(("command", word) for word in command)]
        return str(ws_client.websocket_call(configuration, "GET", url, query_params=query, headers={}).data)

    def names(self) -> set[str]:
        """All that an installation would add to, as kind/namespace/name."""
        kinds = [
            ("v1", "Namespace"),
            ("v1", "Service"),
            ("v1", "Secret"),
            ("v1", "ServiceAccount"),
            ("apps/v1", "Deployment"),
            ("apps/v1", "DaemonSet"),
            ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
            ("rbac.authorization.k8s.io/v1", "ClusterRole"),
            ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
            ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
            ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
        ]
        return {
            f"{kind}/{item['metadata'].get('namespace', '')}/{item['metadata']['name']}"
            for api_version, kind in kinds
            for item in self.objects(api_version, kind)
        }


class Lab:
    """The lab of one topology, and the collection at work on it."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._clusters: dict[str, Cluster] = {}
        self.kubeconfig = Path(self.command("kubeconfig").strip())
        self.istioctl = self.command("istioctl").strip()
        self.inventory = self.command("inventory").strip()
        listed = json.loads(self._run([BIN / "ansible-inventory", "-i", self.inventory, "--list"]).stdout)
        self.variables: dict[str, dict[str, Any]] = listed["_meta"]["hostvars"]
        #: Inventory hosts, which are also the contexts.
        self.hub: str = listed["hub"]["hosts"][0]
        self.managed: list[str] = listed["managed"]["hosts"]
        self.hosts = [self.hub, *self.managed]

    def _run(self, argv: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        collections = f"{CHECKOUT / 'collections'}{os.pathsep}{CACHE / 'collections'}"
        settings = {
            "ANSIBLE_COLLECTIONS_PATH": collections,
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_DEPRECATION_WARNINGS": "0",
        }
        words = [str(word) for word in argv]
        environment = {**os.environ, **settings}
        return subprocess.run(words, cwd=CHECKOUT, env=environment, check=False, capture_output=True, text=True)

    def command(self, name: str) -> str:
        """What a command of the lab prints; the test fails with its error."""
        done = self._run([sys.executable, "-m", "lab", name, "--topology", TOPOLOGY])
        if done.returncode:
            pytest.fail(f"lab {name}: {done.stderr}", pytrace=False)
        return done.stdout

    def restart(self) -> None:
        """Takes the clusters away and makes new ones."""
        self.command("down")
        self.command("up")
        self._clusters.clear()

    def cluster(self, context: str) -> Cluster:
        """A cluster by its context."""
        if context not in self._clusters:
            self._clusters[context] = Cluster(self.kubeconfig, context)
        return self._clusters[context]

    def names(self) -> dict[str, set[str]]:
        """Cluster.names of every cluster."""
        return {host: self.cluster(host).names() for host in self.hosts}

    def site(self, *arguments: str, host_variables: dict[str, dict[str, Any]] | None = None, **variables: Any) -> Run:
        """Runs the main job as `make site` does, with more variables, and more variables of single hosts."""
        extra = {"kubeconfig": str(self.kubeconfig), "istioctl_path": self.istioctl, **variables}
        inventories = ["-i", self.inventory]
        if host_variables:
            path = self._scratch / "hosts.yml"
            path.write_text(yaml.safe_dump({"all": {"hosts": host_variables}}))
            inventories += ["-i", str(path)]
        options = [*inventories, "-e", "@lab/vars.yml", "-e", json.dumps(extra), *arguments]
        done = self._run([BIN / "ansible-playbook", "site.yml", *options])
        stats = {
            host: {key: int(value) for key, value in (pair.split("=") for pair in counters.split())}
            for host, counters in _RECAP.findall(done.stdout)
        }
        return Run(done.returncode, done.stdout + done.stderr, stats)

    def module(self, module: str, context: str, /, check: bool = False, **options: Any) -> dict[str, Any]:
        """Runs one module of the collection on a cluster; its result, with `failed` and `msg` when it failed."""
        arguments = {"kubeconfig": str(self.kubeconfig), "context": context, **options}
        words = ["-m", f"meshfleet.istio.{module}", "-a", json.dumps(arguments), *["--check"] * check]
        done = self._run([BIN / "ansible", "localhost", *words])
        head, arrow, body = done.stdout.partition(" => ")
        assert arrow, done.stdout + done.stderr
        result: dict[str, Any] = json.JSONDecoder().raw_decode(body)[0]
        return {**result, "failed": "FAILED" in head}


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The lab, which must be up."""
    return Lab(tmp_path_factory.mktemp("lab"))
