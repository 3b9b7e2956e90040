# Copyright: (c) 2026, meshfleet.istio contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What has to change on a cluster for it to hold what was rendered, and carrying that out. Internal use only.

The API server decides: each object that may differ is applied as a dry run, and the plan is the difference between the
object as it is and as the server says it would be. So defaults, quantities and fields of other managers are no concern
here.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.meshfleet.istio.plugins.module_utils._errors import MeshError
from ansible_collections.meshfleet.istio.plugins.module_utils._kube import (
    Cluster,
    ClusterError,
    ConflictError,
    describe,
)
from ansible_collections.meshfleet.istio.plugins.module_utils._manifest import (
    WEBHOOKS,
    Key,
    fingerprint,
    group_of,
    key,
    rank,
    to_yaml,
)

OWNER_PREFIX = "operator.meshfleet.istio/"
RENDERED = "meshfleet.istio/rendered"

# What any version of Istio renders: where objects are looked for that are no longer rendered.
_KINDS = [
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ("v1", "ServiceAccount"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "Service"),
    ("v1", "Endpoints"),
    ("v1", "ResourceQuota"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "Deployment"),
    ("policy/v1", "PodDisruptionBudget"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
    ("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition"),
    ("networking.istio.io/v1alpha3", "EnvoyFilter"),
]
_SERVER_FIELDS = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class PlanError(MeshError):
    """The plan cannot be made or carried out; nothing was changed unless the message says so."""


@dataclass(frozen=True)
class Operator:
    """The IstioOperator that owns objects, by namespace and name."""

    namespace: str
    name: str

    @property
    def id(self) -> str:
        """``namespace.name``, at most 63 characters: the longest name that a label may have."""
        full = f"{self.namespace}.{self.name}"
        return full if len(full) <= 63 else f"{full[:54]}-{hashlib.sha256(full.encode()).hexdigest()[:8]}"

    @property
    def label(self) -> str:
        """The label of what it owns. A key per operator: two may render one object, such as a definition of Istio's."""
        return OWNER_PREFIX + self.id

    @property
    def manager(self) -> str:
        """Its field manager in server-side apply. One per operator, or one would take away the other's label."""
        return f"meshfleet.istio/{self.id}"

    def owns(self, item: dict[str, Any]) -> bool:
        """Whether this operator applied the object.

        The label alone does not say so: Kubernetes copies a Service's labels to its Endpoints and EndpointSlices.
        """
        metadata = item["metadata"]
        return self.label in (metadata.get("labels") or {}) and any(
            entry.get("manager") == self.manager for entry in metadata.get("managedFields") or []
        )


@dataclass
class Entry:
    """One object of the plan.

    ``action``: created, changed, unchanged, pruned (deleted), released (another operator owns it too: only the own mark
    goes away) or kept (a CustomResourceDefinition that stays). ``before`` and ``after``: the object without the
    server's own fields, secrets masked; only where they differ. ``definition``: what is applied; ``force``: over
    edits by hand. ``live``: the object as it was read.
    """

    action: str
    api_version: str
    kind: str
    namespace: str | None
    name: str
    definition: dict[str, Any] = field(default_factory=dict)
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    live: dict[str, Any] | None = None
    force: bool = False

    @property
    def title(self) -> str:
        """``Deployment istio-system/istiod``."""
        return describe(self.kind, self.namespace, self.name)

    def data(self) -> dict[str, Any]:
        """The entry in a module's result."""
        names = ("action", "api_version", "kind", "namespace", "name")
        return {name: getattr(self, name) for name in names}


class Planner:
    """Plans for one operator on one cluster.

    ``force``: take over fields that other managers own with other values. ``delete_crds``: CustomResourceDefinitions
    may be deleted; those that have custom resources only with ``delete_custom_resources``.
    """

    def __init__(
        self,
        cluster: Cluster,
        operator: Operator,
        force: bool = False,
        delete_crds: bool = False,
        delete_custom_resources: bool = False,
    ) -> None:
        self.cluster = cluster
        self.operator = operator
        self.force = force
        self.delete_crds = delete_crds
        self.delete_custom_resources = delete_custom_resources

    # Planning

    def present(self, rendered: list[dict[str, Any]]) -> list[Entry]:
        """The plan that makes the cluster hold exactly ``rendered``, in the order in which it is carried out.

        Raises PlanError for what the server would refuse, ConflictError with all conflicts of all objects.
        """
        desired = {key(item): item for item in (self._placed(item, rendered) for item in rendered)}
        owned = self._owned(desired.values())
        namespaces = self._missing_namespaces(desired)
        plan = [
            Entry("created", "v1", "Namespace", None, name, item, after=item)
            for name in namespaces
            for item in [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}]
        ]
        conflicts: list[tuple[str, str, str]] = []
        for name, item in desired.items():
            live = owned.get(name)
            if live is None and name.namespace not in namespaces:
                live = self.cluster.get(item["apiVersion"], name.kind, name.name, name.namespace or None)
            try:
                plan.append(self._entry(item, live, name.namespace in namespaces))
            except ConflictError as error:
                title = describe(name.kind, name.namespace, name.name)
                conflicts += [(title, manager, path) for manager, path in error.conflicts]
        if conflicts:
            raise self._conflict(conflicts)
        plan += self._removal([item for name, item in owned.items() if name not in desired])
        return plan

    def absent(self, rendered: list[dict[str, Any]]) -> list[Entry]:
        """The plan that takes away what the operator owns, and what of ``rendered`` is there unmarked."""
        owned = self._owned(rendered)
        for item in rendered:
            item = self._placed(item, rendered)
            name = key(item)
            if name not in owned and name.kind != "Namespace":
                live = self.cluster.get(item["apiVersion"], name.kind, name.name, name.namespace or None)
                if live is not None:
                    owned[name] = live
        return self._removal(list(owned.values()))

    def _placed(self, item: dict[str, Any], rendered: list[dict[str, Any]]) -> dict[str, Any]:
        """The object with a namespace exactly where its kind has one."""
        namespaced = self.cluster.namespaced(item["apiVersion"], item["kind"])
        if namespaced is None:
            crd = _definition_of(item, rendered)
            if crd is None:
                raise PlanError(
                    f"{self.cluster.name}: the operator renders {item['kind']} {item['metadata']['name']}, but the"
                    f" cluster has no kind {item['kind']} in {item['apiVersion']}. Install what defines it, or"
                    " leave out of the option spec what needs it."
                )
            namespaced = crd["spec"].get("scope") == "Namespaced"
        metadata = item["metadata"]
        if namespaced == bool(metadata.get("namespace")):
            return item
        place = {"namespace": self.operator.namespace} if namespaced else {}
        others = {name: value for name, value in metadata.items() if name != "namespace"}
        return {**item, "metadata": {**others, **place}}

    def _owned(self, rendered: Iterable[dict[str, Any]]) -> dict[Key, dict[str, Any]]:
        """What the operator owns on the cluster: one request per kind."""
        kinds = {(group_of(item["apiVersion"]), item["kind"]): item["apiVersion"] for item in rendered}
        for version, kind in _KINDS:
            kinds.setdefault((group_of(version), kind), version)
        found = {}
        for (_group, kind), version in kinds.items():
            for item in self.cluster.list(version, kind, label_selector=self.operator.label):
                if self.operator.owns(item):
                    found[key(item)] = item
        return found

    def _missing_namespaces(self, desired: Iterable[Key]) -> list[str]:
        """The namespaces that the plan needs and that do not exist, the operator's own first."""
        wanted = dict.fromkeys([self.operator.namespace, *(name.namespace for name in desired if name.namespace)])
        planned = {name.name for name in desired if name.kind == "Namespace"}
        return [name for name in wanted if name not in planned and self.cluster.get("v1", "Namespace", name) is None]

    def _entry(self, item: dict[str, Any], live: dict[str, Any] | None, namespace_missing: bool) -> Entry:
        definition = self._marked(item)
        metadata = definition["metadata"]
        entry = Entry(
            "created",
            definition["apiVersion"],
            definition["kind"],
            metadata.get("namespace"),
            metadata["name"],
            definition,
            live=live,
        )
        if live is not None:
            rendered = (live["metadata"].get("annotations") or {}).get(RENDERED)
            same = rendered == metadata["annotations"][RENDERED]
            _keep_what_istiod_sets(definition, live, same)
            if same and covers(live, definition):
                entry.action = "unchanged"
                return entry
        elif (
            namespace_missing
            or entry.kind == "CustomResourceDefinition"
            or not self.cluster.serves(entry.api_version, entry.kind)
        ):
            # The server cannot be asked before the namespace or the definition exists. Definitions are taken as they
            # are: asking takes as long as making them.
            entry.after = _shown(definition)
            return entry
        try:
            try:
                result = self.cluster.apply(definition, self.operator.manager, self.force, dry_run=True)
            except ConflictError as error:
                result = self.cluster.apply(definition, self.operator.manager, True, dry_run=True)
                # The server compares as written: 2Gi against 2048Mi, a list with defaults against one without.
                real = [item for item in error.conflicts if live is None or not same_at(item[1], live, result)]
                if real and not self._is_drift(live, real):
                    raise ConflictError(str(error), real) from error
                entry.force = True
        except ConflictError:
            raise
        except ClusterError as error:
            raise PlanError(f"{error} Nothing was changed.{self._remedy(error, live)}") from error
        if live is None:
            entry.after = _shown(result)
        elif normalised(live) == normalised(result):
            entry.action = "unchanged"
        else:
            entry.action = "changed"
            entry.before, entry.after = _shown(live), _shown(result, live)
        return entry

    def _remedy(self, error: ClusterError, live: dict[str, Any] | None) -> str:
        """What to do about an object that the server refuses in combination with what is there."""
        if "immutable" in str(error) or "cannot change roleRef" in str(error):
            return " This field cannot be changed: delete the object first, when an interruption is acceptable."
        if live is not None and not self.operator.owns(live):
            managers = sorted({str(item.get("manager")) for item in live["metadata"].get("managedFields") or []})
            return (
                f" The object exists and keeps what {', '.join(managers)} set in it; where that does not go together"
                " with what is rendered, delete the object first, or take those fields out of it."
            )
        return ""

    def _is_drift(self, live: dict[str, Any] | None, conflicts: list[tuple[str, str]]) -> bool:
        """Whether the conflicts are edits (kubectl edit, patch, set) of what this operator applied, to be put back.

        A manager that applies declares what it wants, again and again: that is a conflict.
        """
        if live is None or not self.operator.owns(live):
            return False
        declaring = {
            item.get("manager")
            for item in live["metadata"].get("managedFields") or []
            if item.get("operation") == "Apply"
        }
        return not any(manager in declaring for manager, _field in conflicts)

    def _marked(self, item: dict[str, Any]) -> dict[str, Any]:
        """A copy with the operator's label and the fingerprint of what was rendered."""
        definition = copy.deepcopy(item)
        metadata = definition["metadata"]
        metadata["labels"] = {**(metadata.get("labels") or {}), self.operator.label: "true"}
        metadata["annotations"] = {**(metadata.get("annotations") or {}), RENDERED: fingerprint(item)}
        return definition

    def _conflict(self, conflicts: list[tuple[str, str, str]]) -> ConflictError:
        fields = [f"{manager} owns {path} of {title}" for title, manager, path in conflicts]
        shown = "; ".join(fields[:20]) + (f"; and {len(fields) - 20} more" if len(fields) > 20 else "")
        return ConflictError(
            f"{self.cluster.name}: other managers own fields that the operator {self.operator.id} sets to other values:"
            f" {shown}. Nothing was changed. Set force_conflicts to true to take them over (as when adopting an"
            " installation by istioctl install), or the option spec to those values.",
            [(manager, f"{title} {path}") for title, manager, path in conflicts],
        )

    def _removal(self, items: list[dict[str, Any]]) -> list[Entry]:
        """Mutating webhooks first, or they call what is gone; then the rest, against the order of applying."""
        # An object in deletion is on its way out already.
        items = [item for item in items if not item["metadata"].get("deletionTimestamp")]
        plan = []
        for item in sorted(
            items, key=lambda item: (item["kind"] != "MutatingWebhookConfiguration", -rank(item["kind"]))
        ):
            metadata = item["metadata"]
            entry = Entry(
                "pruned", item["apiVersion"], item["kind"], metadata.get("namespace"), metadata["name"], live=item
            )
            others = [name for name in metadata.get("labels") or {} if name.startswith(OWNER_PREFIX)]
            if any(name != self.operator.label for name in others):
                # Applying nothing gives up what this manager owns, and leaves what others own.
                entry.action = "released" if self.operator.label in others else "kept"
                names = {"name": metadata["name"], **({"namespace": entry.namespace} if entry.namespace else {})}
                entry.definition = {"apiVersion": entry.api_version, "kind": entry.kind, "metadata": names}
            elif item["kind"] == "CustomResourceDefinition" and not self._may_delete(item):
                entry.action = "kept"
            plan.append(entry)
        return plan

    def _may_delete(self, crd: dict[str, Any]) -> bool:
        if not self.delete_crds or self.delete_custom_resources:
            return self.delete_crds
        spec = crd["spec"]
        version = next(item["name"] for item in spec["versions"] if item.get("served"))
        return not self.cluster.list(f"{spec['group']}/{version}", spec["names"]["kind"])

    # Carrying out

    def carry_out(self, plan: list[Entry], foreground: bool = False) -> None:
        """Do what the plan says, in its order. ``foreground``: a deleted workload stays until its pods are gone."""
        crds = False
        for entry in plan:
            if entry.kind != "CustomResourceDefinition" and crds:
                self._established(plan)
                crds = False
            if entry.action in ("created", "changed"):
                self.cluster.apply(entry.definition, self.operator.manager, self.force or entry.force)
                crds = crds or entry.kind == "CustomResourceDefinition"
            elif entry.action == "released":
                self.cluster.apply(entry.definition, self.operator.manager)
            elif entry.action == "pruned":
                workload = entry.kind in ("Deployment", "DaemonSet")
                propagation = "Foreground" if foreground and workload else "Background"
                self.cluster.delete(entry.api_version, entry.kind, entry.name, entry.namespace, propagation=propagation)
        if crds:
            self._established(plan)

    def _established(self, plan: list[Entry]) -> None:
        """Wait (30 s at most) until the server serves the definitions that were applied."""
        version, kind = "apiextensions.k8s.io/v1", "CustomResourceDefinition"
        applied = {item.name for item in plan if item.kind == kind and item.action in ("created", "changed")}
        crds = self.cluster.list(version, kind, label_selector=self.operator.label)
        for name in sorted(applied - {crd["metadata"]["name"] for crd in crds if _is_established(crd)}):
            if not any(map(_is_established, self.cluster.watch(version, kind, name, None, 30))):
                raise PlanError(f"{self.cluster.name}: {kind} {name} was applied, but is not Established after 30 s.")
        self.cluster.forget_discovery()


def _is_established(crd: dict[str, Any]) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or []
    return any(item["type"] == "Established" and item["status"] == "True" for item in conditions)


def _definition_of(item: dict[str, Any], rendered: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The CustomResourceDefinition of an object among what was rendered."""
    for crd in rendered:
        if crd["kind"] == "CustomResourceDefinition":
            spec = crd["spec"]
            if spec["group"] == group_of(item["apiVersion"]) and spec["names"]["kind"] == item["kind"]:
                return crd
    return None


def _keep_what_istiod_sets(definition: dict[str, Any], live: dict[str, Any], same: bool) -> None:
    """Take over from the live webhooks what istiod writes into them, so that it is never changed back.

    That is the failurePolicy of a validating webhook (rendered as Ignore, Fail once istiod serves it) and a caBundle.
    ``same``: what is rendered is what was applied before; so a caBundle that differs from the rendered one is istiod's.
    """
    if definition["kind"] not in WEBHOOKS:
        return
    current = {webhook["name"]: webhook for webhook in live.get("webhooks") or []}
    for webhook in definition.get("webhooks") or []:
        found = current.get(webhook["name"]) or {}
        if webhook.get("failurePolicy") == "Ignore" and found.get("failurePolicy") == "Fail":
            webhook["failurePolicy"] = "Fail"
        ca_bundle = (found.get("clientConfig") or {}).get("caBundle")
        if same and ca_bundle and "caBundle" in webhook.get("clientConfig", {}):
            webhook["clientConfig"]["caBundle"] = ca_bundle


def covers(live: Any, desired: Any) -> bool:
    """Whether ``live`` has all that ``desired`` says; lists element by element.

    False only means that the server has to be asked: it may write a value in another way.
    """
    if isinstance(desired, dict):
        if not isinstance(live, dict):
            return live is None and not desired
        return all(covers(live.get(name), value) for name, value in desired.items())
    if isinstance(desired, list):
        if not isinstance(live, list):
            return live is None and not desired
        return len(live) == len(desired) and all(map(covers, live, desired))
    return type(live) is type(desired) and bool(live == desired)


_MISSING = object()


def same_at(path: str, one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two objects have the same value at a path as server-side apply writes it.

    For example ``.spec.template.spec.containers[name="discovery"].image``. False when ``other`` has nothing there.
    """
    value = _at(other, path)
    return value is not _MISSING and bool(_at(one, path) == value)


def _at(item: Any, path: str) -> Any:
    if not path:
        return item
    if isinstance(item, dict) and path.startswith("."):
        # A label's key has dots of its own: the longest key that fits is tried first.
        for name in sorted(item, key=len, reverse=True):
            rest = path[1 + len(name) :]
            if path[1:].startswith(name) and (not rest or rest[0] in ".["):
                found = _at(item[name], rest)
                if found is not _MISSING:
                    return found
    match = re.match(r'\[((?:[^"\]]|"(?:[^"\\]|\\.)*")*)\]', path)
    if isinstance(item, list) and match:
        rest = path[match.end() :]
        pairs = re.findall(r'([^=,]*)=("(?:[^"\\]|\\.)*"|[^,]+)', match.group(1))
        keys = {name: json.loads(value) for name, value in pairs}
        for element in item:
            if keys and all((element if not name else element.get(name)) == value for name, value in keys.items()):
                return _at(element, rest)
    return _MISSING


def normalised(item: dict[str, Any]) -> dict[str, Any]:
    """The object without the server's own fields: what a user could have written."""
    metadata = {name: value for name, value in item["metadata"].items() if name not in _SERVER_FIELDS}
    annotations = {
        name: value for name, value in (metadata.pop("annotations", None) or {}).items() if name != _LAST_APPLIED
    }
    if annotations:
        metadata["annotations"] = annotations
    return {**{name: value for name, value in item.items() if name not in ("status", "metadata")}, "metadata": metadata}


def _shown(item: dict[str, Any], before: dict[str, Any] | None = None) -> dict[str, Any]:
    """The object for a diff. A Secret's values are hidden; only whether they differ from ``before`` is seen."""
    result = normalised(item)
    if item["kind"] == "Secret":
        for part in ("data", "stringData"):
            if result.get(part):
                old = item[part] if before is None else before.get(part) or {}
                result[part] = {
                    name: "<hidden>" if old.get(name) == value else "<hidden, changed>"
                    for name, value in result[part].items()
                }
    return result


def changes(plan: list[Entry]) -> bool:
    """Whether carrying out the plan would change anything."""
    return any(entry.action in ("created", "changed", "pruned", "released") for entry in plan)


def diff(plan: list[Entry]) -> list[dict[str, str]]:
    """Ansible's diff: each changed object as YAML under its name; the others by name alone."""
    result = []
    for entry in plan:
        if entry.action == "changed":
            title = f"{entry.title} ({entry.api_version})"
            result.append(
                {
                    "before_header": title,
                    "after_header": title,
                    "before": to_yaml(entry.before),
                    "after": to_yaml(entry.after),
                }
            )
    for action, side, other in (
        ("created", "after", "before"),
        ("pruned", "before", "after"),
        ("released", "before", "after"),
    ):
        names = "".join(f"{entry.title}\n" for entry in plan if entry.action == action)
        if names:
            result.append({"before_header": action, "after_header": action, side: names, other: ""})
    return result
