# Copyright: (c) 2026, meshfleet.istio contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What istioctl rendered, as objects: in order, once each, without noise. Internal use only."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, NamedTuple

from ansible_collections.meshfleet.istio.plugins.module_utils._errors import MeshError

try:
    import yaml

    # The parser in C takes 0.1 s for the 1 MB of a control plane, the one in Python 3 s.
    _LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    _DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
except ImportError:  # connect() in _kube has said so: the kubernetes library needs it too
    pass

# Definitions and rights before what uses them, webhooks after what answers them.
_ORDER = [
    "Namespace",
    "CustomResourceDefinition",
    "ServiceAccount",
    "ClusterRole",
    "Role",
    "ClusterRoleBinding",
    "RoleBinding",
    "ConfigMap",
    "Secret",
    "NetworkAttachmentDefinition",
    "Service",
    "Endpoints",
    "EndpointSlice",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "DaemonSet",
    "Deployment",
    "PodDisruptionBudget",
    "HorizontalPodAutoscaler",
    "NetworkPolicy",
]
_LAST = ["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"]
WEBHOOKS = frozenset(_LAST)


class Key(NamedTuple):
    """What one object is called. The version of its group does not matter."""

    group: str
    kind: str
    namespace: str
    name: str


class ManifestError(MeshError):
    """What istioctl printed are not objects, or two different ones of one name."""


def group_of(api_version: str) -> str:
    """``apps`` of ``apps/v1``, ``""`` of ``v1``."""
    return api_version.rpartition("/")[0]


def key(item: dict[str, Any]) -> Key:
    """The key of an object."""
    metadata = item["metadata"]
    return Key(group_of(item["apiVersion"]), item["kind"], metadata.get("namespace") or "", metadata["name"])


def rank(kind: str) -> int:
    """The place of a kind in the order in which objects are applied."""
    if kind in _LAST:
        return len(_ORDER) + 1 + _LAST.index(kind)
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER)


def parse(text: str) -> list[dict[str, Any]]:
    """The objects in the order in which they are to be applied, each once, without noise.

    Raises ManifestError for what is not an object and for two different objects of one name.
    """
    try:
        documents = [item for item in yaml.load_all(text, Loader=_LOADER) if item is not None]
    except yaml.YAMLError as error:
        raise ManifestError(f"istioctl printed what is not YAML: {error}") from error
    found: dict[Key, dict[str, Any]] = {}
    for document in documents:
        try:
            name = key(document)
        except (KeyError, TypeError, AttributeError):
            raise ManifestError(f"istioctl printed what is not a Kubernetes object: {str(document)[:200]}") from None
        item = clean(document)
        # Istio 1.11 prints the definitions and the reader's account twice.
        if name in found and found[name] != item:
            raise ManifestError(
                f"istioctl printed two different objects {name.kind} {name.namespace or '-'}/{name.name}. Check the"
                " option spec: two components or gateways of one name?"
            )
        found[name] = item
    return sorted(found.values(), key=lambda item: rank(item["kind"]))


def clean(document: dict[str, Any]) -> dict[str, Any]:
    """A copy without what a client must not send: null values, status, an empty caBundle.

    An empty caBundle (Istio 1.11) would wipe the one that istiod wrote.
    """
    item: dict[str, Any] = _without_nulls(document)
    item.pop("status", None)
    if item["kind"] in WEBHOOKS:
        for webhook in item.get("webhooks") or []:
            if not webhook.get("clientConfig", {}).get("caBundle", "-"):
                del webhook["clientConfig"]["caBundle"]
    if item["kind"] == "ConfigMap" and group_of(item["apiVersion"]) == "":
        _order_values(item)
    return item


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _order_values(item: dict[str, Any]) -> None:
    """Give the payload of the ConfigMap ``values`` (all Helm values, for debugging) an order of its own.

    istioctl prints it in whichever order its merges ended up.
    """
    data = item.get("data") or {}
    if re.fullmatch(r"values(-.*)?", item["metadata"]["name"]):
        for name in ("original-values", "merged-values"):
            if isinstance(data.get(name), str):
                try:
                    data[name] = json.dumps(json.loads(data[name]), indent=2, sort_keys=True)
                except ValueError:
                    continue  # Not JSON in this version of Istio: as it is


def fingerprint(item: dict[str, Any]) -> str:
    """SHA-256 of an object's canonical JSON, in hexadecimal."""
    return hashlib.sha256(json.dumps(item, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def to_yaml(item: Any) -> str:
    """YAML as people read it: sorted keys, block style."""
    return str(yaml.dump(item, Dumper=_DUMPER, default_flow_style=False, sort_keys=True, width=120))
