"""A cluster in memory, with what the plans rely on: server-side apply with field owners, labels, dry runs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.meshfleet.istio.plugins.module_utils._kube import ClusterError, ConflictError

Object = dict[str, Any]

CLUSTER_WIDE = {
    "Namespace",
    "CustomResourceDefinition",
    "ClusterRole",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
}
KINDS = CLUSTER_WIDE | {"ConfigMap", "Secret", "Service", "ServiceAccount", "Deployment", "DaemonSet", "Pod", "Event"}


def leaves(item: Any, path: str = "") -> dict[str, Any]:
    """The values of an object by path; a list is one value, as if it were atomic."""
    if isinstance(item, dict) and item:
        found: dict[str, Any] = {}
        for name, value in item.items():
            found.update(leaves(value, f"{path}.{name}"))
        return found
    return {path: item}


def merge(into: Object, item: Object) -> None:
    for name, value in item.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            merge(into[name], value)
        else:
            into[name] = copy.deepcopy(value)


def remove(item: Any, path: str) -> None:
    """Remove the value at a path as leaves() writes it; keys may have dots."""
    for name in list(item) if isinstance(item, dict) else []:
        if path == f".{name}":
            del item[name]
        elif path.startswith(f".{name}."):
            remove(item[name], path[1 + len(name) :])


class FakeCluster:
    """Behaves like Cluster over a store of objects."""

    def __init__(self) -> None:
        self.name = "fake"
        self.version = (1, 35)
        self.git_version = "v1.35.4"
        self.store: dict[tuple[str, str, str], Object] = {}
        self.owners: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
        self.writes: list[str] = []
        self.dry_runs: list[str] = []
        self.refuse: ClusterError | None = None
        self.logs: dict[str, str] = {}
        for namespace in ("kube-system", "istio-system"):
            self.edit("setup", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})

    def serves(self, _api_version: str, kind: str) -> bool:
        defined = {item["spec"]["names"]["kind"] for item in self.list("", "CustomResourceDefinition")}
        return kind in KINDS | defined

    def namespaced(self, api_version: str, kind: str) -> bool | None:
        return kind not in CLUSTER_WIDE if self.serves(api_version, kind) else None

    def forget_discovery(self) -> None:
        self.writes.append("forget discovery")

    def get(self, _api_version: str, kind: str, name: str, namespace: str | None = None) -> Object | None:
        return copy.deepcopy(self.store.get((kind, namespace or "", name)))

    def list(
        self,
        _api_version: str,
        kind: str,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> list[Object]:
        found = []
        for item in self.store.values():
            labels = item["metadata"].get("labels") or {}
            wanted = [part.partition("=") for part in (label_selector or "").split(",") if part]
            matches = all(name in labels and (not equals or labels[name] == value) for name, equals, value in wanted)
            if field_selector and item.get("involvedObject", {}).get("uid") != field_selector.partition("=")[2]:
                continue
            if matches and item["kind"] == kind and namespace in (None, item["metadata"].get("namespace")):
                found.append(copy.deepcopy(item))
        return found

    def watch(
        self, api_version: str, kind: str, name: str | None, namespace: str | None, _timeout: float, *_selector: str
    ) -> Iterator[Object]:
        for item in self.list(api_version, kind, namespace):
            if name in (None, item["metadata"]["name"]):
                yield item

    def edit(self, manager: str, item: Object) -> None:
        """An update by someone else, as by kubectl edit; takes the fields over."""
        key = self._key(item)
        self.store.setdefault(key, {"apiVersion": item["apiVersion"], "kind": item["kind"], "metadata": {}})
        merge(self.store[key], item)
        for owned in self.owners.setdefault(key, {}).values():
            for path, value in leaves(item).items():
                if path in owned and owned[path] != value:
                    del owned[path]
        self.owners[key].setdefault(manager, {}).update(leaves(item))
        self._note(self.store[key], manager, "Update")

    def apply(self, definition: Object, field_manager: str, force: bool = False, dry_run: bool = False) -> Object:
        key = self._key(definition)
        title = f"{key[0]} {key[2]}"
        if self.refuse is not None:
            raise self.refuse
        if definition["metadata"].get("namespace") and not self.get(
            "", "Namespace", definition["metadata"]["namespace"]
        ):
            raise ClusterError(f"fake: cannot apply {title}: no namespace", 404, "NotFound")
        item = copy.deepcopy(self.store.get(key, {}))
        owners = copy.deepcopy(self.owners.get(key, {}))
        wanted = leaves(definition)
        current = leaves(item)
        conflicts = [
            (manager, path)
            for manager, owned in owners.items()
            for path, value in wanted.items()
            if manager != field_manager and path in owned and current.get(path) != value
        ]
        if conflicts and not force:
            raise ConflictError(f"fake: cannot apply {title}: conflict", conflicts)
        for manager, path in conflicts:
            owners[manager].pop(path, None)
        for path in owners.get(field_manager, {}):
            others = [owned for manager, owned in owners.items() if manager != field_manager and path in owned]
            if path not in wanted and not others:
                remove(item, path)
        merge(item, definition)
        owners[field_manager] = wanted
        self._note(item, field_manager, "Apply")
        if dry_run:
            self.dry_runs.append(title)
        else:
            self.writes.append(f"apply {title}")
            if item["kind"] == "CustomResourceDefinition":
                item["status"] = {"conditions": [{"type": "Established", "status": "True"}]}
            self.store[key], self.owners[key] = item, owners
        return copy.deepcopy(item)

    def delete(
        self, _api_version: str, kind: str, name: str, namespace: str | None = None, propagation: str = "Background"
    ) -> bool:
        self.writes.append(f"delete {kind} {name}" + ("" if propagation == "Background" else f" ({propagation})"))
        self.owners.pop((kind, namespace or "", name), None)
        return self.store.pop((kind, namespace or "", name), None) is not None

    def log(self, pod: str, _namespace: str, _container: str, **_arguments: Any) -> str:
        return self.logs.get(pod, "")

    def _key(self, item: Object) -> tuple[str, str, str]:
        return item["kind"], item["metadata"].get("namespace") or "", item["metadata"]["name"]

    def _note(self, item: Object, manager: str, operation: str) -> None:
        fields = item["metadata"].setdefault("managedFields", [])
        entry = {"manager": manager, "operation": operation}
        if entry not in fields:
            fields.append(entry)


@pytest.fixture
def cluster() -> FakeCluster:
    """A cluster with the namespaces kube-system and istio-system."""
    return FakeCluster()
