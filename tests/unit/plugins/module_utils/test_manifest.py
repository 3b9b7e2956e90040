"""Tests of what is made of istioctl's output."""

from __future__ import annotations

import pytest
from ansible_collections.meshfleet.istio.plugins.module_utils import _manifest
from ansible_collections.meshfleet.istio.plugins.module_utils._manifest import ManifestError


def document(kind: str, name: str, rest: str = "") -> str:
    return f"apiVersion: v1\nkind: {kind}\nmetadata:\n  name: {name}\n{rest}---\n"


def test_parse_orders_definitions_first_and_webhooks_last() -> None:
    kinds = ["MutatingWebhookConfiguration", "Service", "Surprise", "Deployment", "ServiceAccount"]
    kinds += ["ValidatingWebhookConfiguration", "CustomResourceDefinition", "Namespace"]
    found = _manifest.parse("".join(document(kind, "a") for kind in kinds))
    assert [item["kind"] for item in found] == [
        "Namespace",
        "CustomResourceDefinition",
        "ServiceAccount",
        "Service",
        "Deployment",
        "Surprise",
        "ValidatingWebhookConfiguration",
        "MutatingWebhookConfiguration",
    ]


def test_parse_drops_empty_documents_and_identical_copies() -> None:
    text = "---\n\n---\n" + document("ConfigMap", "a") + "# only a comment\n---\n" + document("ConfigMap", "a")
    assert len(_manifest.parse(text)) == 1


def test_parse_refuses_two_different_objects_of_one_name() -> None:
    text = document("ConfigMap", "a") + document("ConfigMap", "a", "data: {b: c}\n")
    with pytest.raises(ManifestError, match=r"two different objects ConfigMap -/a.*option spec"):
        _manifest.parse(text)


@pytest.mark.parametrize("text", ["a: [", "just text", "kind: X", "apiVersion: v1\nkind: X\nmetadata: {}", "- 1"])
def test_parse_refuses_what_is_no_object(text: str) -> None:
    with pytest.raises(ManifestError, match=r"istioctl printed what is not"):
        _manifest.parse(text)


def test_clean_drops_nulls_and_status_but_keeps_empty_values() -> None:
    rest = "  creationTimestamp: null\n  annotations: null\nspec: {a: {}, b: [null], c: ''}\nstatus: {replicas: 0}\n"
    assert _manifest.parse(document("Deployment", "a", rest)) == [
        {
            "apiVersion": "v1",
            "kind": "Deployment",
            "metadata": {"name": "a"},
            "spec": {"a": {}, "b": [None], "c": ""},
        }
    ]


def test_clean_drops_an_empty_ca_bundle_only() -> None:
    rest = (
        "webhooks:\n- {name: empty, clientConfig: {url: u, caBundle: ''}}\n"
        "- {name: full, clientConfig: {url: u, caBundle: Zm9v}}\n- {name: none, clientConfig: {url: u}}\n"
    )
    (item,) = _manifest.parse(document("MutatingWebhookConfiguration", "a", rest))
    assert [webhook["clientConfig"].get("caBundle") for webhook in item["webhooks"]] == [None, "Zm9v", None]


def test_the_order_in_the_values_config_map_does_not_matter() -> None:
    one = document("ConfigMap", "values-canary", 'data:\n  merged-values: \'{"a": 1, "b": 2}\'\n')
    other = document("ConfigMap", "values-canary", 'data:\n  merged-values: \'{"b": 2, "a": 1}\'\n')
    assert _manifest.parse(one) == _manifest.parse(other)
    text = document("ConfigMap", "values", "data:\n  merged-values: 'b: 1'\n")
    assert _manifest.parse(text)[0]["data"] == {"merged-values": "b: 1"}
    assert _manifest.parse(one.replace("values-canary", "mine")) != _manifest.parse(
        other.replace("values-canary", "mine")
    )


def test_fingerprint_depends_on_values_not_on_order() -> None:
    assert _manifest.fingerprint({"a": 1, "b": [1, 2]}) == _manifest.fingerprint({"b": [1, 2], "a": 1})
    assert _manifest.fingerprint({"b": [1, 2]}) != _manifest.fingerprint({"b": [2, 1]})
