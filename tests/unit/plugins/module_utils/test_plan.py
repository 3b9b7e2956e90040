"""Tests of plans over a cluster in memory."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from ansible_collections.meshfleet.istio.plugins.module_utils import _plan
from ansible_collections.meshfleet.istio.plugins.module_utils._kube import ClusterError, ConflictError
from ansible_collections.meshfleet.istio.plugins.module_utils._plan import Entry, Operator, PlanError, Planner

Object = dict[str, Any]
HUB = Operator("istio-system", "hub")
VERSIONS = {
    "CustomResourceDefinition": "apiextensions.k8s.io/v1",
    "Deployment": "apps/v1",
    "MutatingWebhookConfiguration": "admissionregistration.k8s.io/v1",
    "ValidatingWebhookConfiguration": "admissionregistration.k8s.io/v1",
}


def item(kind: str, name: str, namespace: str | None = "istio-system", **rest: Any) -> Object:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": VERSIONS.get(kind, "v1"), "kind": kind, "metadata": metadata, **rest}


def config(name: str = "istio", **data: str) -> Object:
    return item("ConfigMap", name, data=data or {"mesh": "a"})


def crd(kind: str = "Gateway") -> Object:
    spec = {
        "group": "networking.istio.io",
        "scope": "Namespaced",
        "names": {"kind": kind},
        "versions": [{"name": "v1", "served": True}],
    }
    return item("CustomResourceDefinition", f"{kind.lower()}s", None, spec=spec)


def webhook(kind: str = "ValidatingWebhookConfiguration", name: str = "check", **fields: Any) -> Object:
    return item(kind, name, None, webhooks=[{"name": "w", "clientConfig": {"url": "u"}, **fields}])


def install(cluster: Any, *rendered: Object, operator: Operator = HUB, **options: bool) -> list[Entry]:
    planner = Planner(cluster, operator, **options)
    plan = planner.present(list(rendered))
    planner.carry_out(plan)
    return plan


def actions(plan: list[Entry]) -> list[str]:
    return [f"{entry.action} {entry.kind} {entry.name}" for entry in plan if entry.action != "unchanged"]


def test_first_run_creates_second_run_changes_nothing_and_asks_nothing(cluster: Any) -> None:
    plan = install(cluster, config(), item("Service", "istiod", spec={"ports": []}))
    assert actions(plan) == ["created ConfigMap istio", "created Service istiod"]
    assert _plan.changes(plan)
    cluster.writes.clear()
    cluster.dry_runs.clear()
    plan = install(cluster, config(), item("Service", "istiod", spec={"ports": []}))
    assert actions(plan) == []
    assert not _plan.changes(plan)
    assert (cluster.writes, cluster.dry_runs) == ([], [])
    assert plan[0].data() == {
        "action": "unchanged",
        "api_version": "v1",
        "kind": "ConfigMap",
        "namespace": "istio-system",
        "name": "istio",
    }


def test_planning_writes_nothing(cluster: Any) -> None:
    install(cluster, config())
    cluster.writes.clear()
    before = dict(cluster.store)
    Planner(cluster, HUB).present([config(mesh="b"), crd()])
    Planner(cluster, HUB).absent([])
    assert cluster.writes == []
    assert cluster.store == before


def test_owned_objects_are_marked_at_their_top_only(cluster: Any) -> None:
    pod = {"metadata": {"labels": {"app": "istiod"}}}
    install(cluster, item("Deployment", "istiod", spec={"template": pod}))
    live = cluster.get("", "Deployment", "istiod", "istio-system")
    assert live["metadata"]["labels"] == {"operator.meshfleet.istio/istio-system.hub": "true"}
    assert list(live["metadata"]["annotations"]) == ["meshfleet.istio/rendered"]
    assert live["spec"]["template"] == pod


def test_missing_namespaces_are_created_first_and_only_once(cluster: Any) -> None:
    operator = Operator("mesh", "hub")
    rendered = [item("ServiceAccount", "a", None), item("ServiceAccount", "b", "gateways")]
    plan = install(cluster, *rendered, operator=operator)
    assert [(entry.kind, entry.namespace, entry.name) for entry in plan] == [
        ("Namespace", None, "mesh"),
        ("Namespace", None, "gateways"),
        ("ServiceAccount", "mesh", "a"),
        ("ServiceAccount", "gateways", "b"),
    ]
    assert "labels" not in cluster.get("", "Namespace", "mesh")["metadata"]
    assert actions(install(cluster, *rendered, operator=operator)) == []


def test_custom_resources_wait_for_their_definition(cluster: Any) -> None:
    gateway = item("Gateway", "g") | {"apiVersion": "networking.istio.io/v1"}
    plan = install(cluster, crd(), gateway)
    assert actions(plan) == ["created CustomResourceDefinition gateways", "created Gateway g"]
    assert cluster.writes == ["apply CustomResourceDefinition gateways", "forget discovery", "apply Gateway g"]


def test_kind_that_nothing_defines(cluster: Any) -> None:
    network = item("NetworkAttachmentDefinition", "istio-cni", "default") | {"apiVersion": "k8s.cni.cncf.io/v1"}
    with pytest.raises(PlanError, match=r"no kind NetworkAttachmentDefinition in k8s.cni.cncf.io/v1.*option spec"):
        Planner(cluster, HUB).present([network])


def test_changed_rendering_is_a_change_and_drops_what_is_gone(cluster: Any) -> None:
    install(cluster, config(mesh="a", old="x"))
    plan = install(cluster, config(mesh="b"))
    assert actions(plan) == ["changed ConfigMap istio"]
    assert (plan[0].before or {})["data"] == {"mesh": "a", "old": "x"}
    assert (plan[0].after or {})["data"] == {"mesh": "b"}
    assert "managedFields" not in (plan[0].after or {})["metadata"]
    assert cluster.get("", "ConfigMap", "istio", "istio-system")["data"] == {"mesh": "b"}


def test_edits_by_hand_are_shown_and_put_back_unforced(cluster: Any) -> None:
    install(cluster, config(), config("other"))
    cluster.edit("kubectl-edit", config(mesh="edited"))
    cluster.delete("", "ConfigMap", "other", "istio-system")
    plan = install(cluster, config(), config("other"))
    assert actions(plan) == ["changed ConfigMap istio", "created ConfigMap other"]
    assert cluster.get("", "ConfigMap", "istio", "istio-system")["data"] == {"mesh": "a"}
    assert actions(install(cluster, config(), config("other"))) == []


def test_fields_of_others_that_are_not_rendered_are_no_difference(cluster: Any) -> None:
    install(cluster, config())
    cluster.edit("someone", config(extra="x"))
    assert actions(install(cluster, config())) == []
    assert cluster.get("", "ConfigMap", "istio", "istio-system")["data"] == {"mesh": "a", "extra": "x"}


def test_fields_that_others_apply_are_conflicts_until_forced(cluster: Any) -> None:
    install(cluster, config(), config("fine"))
    cluster.apply(config(mesh="theirs"), "argocd", force=True)
    cluster.edit("kubectl-edit", config("fine", mesh="edited"))
    cluster.writes.clear()
    with pytest.raises(ConflictError) as raised:
        install(cluster, config(), config("fine"))
    assert "argocd owns .data.mesh of ConfigMap istio-system/istio" in str(raised.value)
    assert "force_conflicts" in str(raised.value)
    assert raised.value.conflicts == [("argocd", "ConfigMap istio-system/istio .data.mesh")]
    assert cluster.writes == []
    assert actions(install(cluster, config(), config("fine"), force=True)) == [
        "changed ConfigMap istio",
        "changed ConfigMap fine",
    ]


def test_adoption_shows_the_mark_and_takes_equal_values_over(cluster: Any) -> None:
    cluster.edit("kubectl-client-side-apply", config())
    plan = install(cluster, config())
    assert actions(plan) == ["changed ConfigMap istio"]
    assert actions(install(cluster, config())) == []


def test_adoption_of_other_values_is_a_conflict(cluster: Any) -> None:
    cluster.edit("kubectl-client-side-apply", config(mesh="old"))
    with pytest.raises(ConflictError, match=r"kubectl-client-side-apply owns \.data\.mesh"):
        install(cluster, config())


def test_all_conflicts_of_all_objects_are_named(cluster: Any) -> None:
    for number in range(25):
        cluster.apply(config(f"c{number}", mesh="theirs"), "argocd")
    with pytest.raises(ConflictError, match=r"and 5 more\. Nothing was changed") as raised:
        Planner(cluster, HUB).present([config(f"c{number}") for number in range(25)])
    assert len(raised.value.conflicts) == 25


def test_what_the_server_refuses_fails_before_any_change(cluster: Any) -> None:
    install(cluster, config())
    cluster.writes.clear()
    cluster.refuse = ClusterError("fake: cannot apply: spec.selector: field is immutable (422 Invalid)", 422, "Invalid")
    with pytest.raises(PlanError, match=r"immutable.*Nothing was changed.*delete the object first"):
        install(cluster, config(mesh="b"))
    assert cluster.writes == []


def test_an_object_of_others_that_does_not_go_together_with_what_is_rendered(cluster: Any) -> None:
    cluster.edit("istio-operator", config())
    cluster.refuse = ClusterError("fake: exactly one of url or service is required (422 Invalid)", 422, "Invalid")
    with pytest.raises(PlanError, match=r"keeps what istio-operator set in it.*delete the object first"):
        install(cluster, config(mesh="b"))


def test_no_longer_rendered_is_pruned_in_reverse_and_nothing_else(cluster: Any) -> None:
    cluster.edit("user", config("mine"))
    mutating = webhook("MutatingWebhookConfiguration", "inject")
    install(cluster, config(), item("Service", "gone"), item("ServiceAccount", "gone"), mutating, webhook())
    cluster.writes.clear()
    plan = install(cluster, config())
    assert actions(plan) == [
        "pruned MutatingWebhookConfiguration inject",
        "pruned ValidatingWebhookConfiguration check",
        "pruned Service gone",
        "pruned ServiceAccount gone",
    ]
    assert cluster.get("", "ConfigMap", "mine", "istio-system")
    assert actions(install(cluster, config())) == []


def test_labels_that_kubernetes_copied_do_not_make_an_object_owned(cluster: Any) -> None:
    copied = config("copied")
    copied["metadata"]["labels"] = {HUB.label: "true"}
    cluster.edit("endpoint-controller", copied)
    assert actions(install(cluster, config())) == ["created ConfigMap istio"]


def test_operators_side_by_side_share_and_release(cluster: Any) -> None:
    other = Operator("istio-system", "other")
    install(cluster, crd(), config())
    assert actions(install(cluster, crd(), config("second"), operator=other)) == [
        "changed CustomResourceDefinition gateways",
        "created ConfigMap second",
    ]
    assert actions(install(cluster, crd(), config())) == []
    planner = Planner(cluster, other, delete_crds=True)
    plan = planner.absent([])
    planner.carry_out(plan)
    assert actions(plan) == ["pruned ConfigMap second", "released CustomResourceDefinition gateways"]
    labels = cluster.get("", "CustomResourceDefinition", "gateways")["metadata"]["labels"]
    assert labels == {HUB.label: "true"}
    assert actions(install(cluster, crd(), config())) == []
    assert _plan.changes(plan)


@pytest.mark.parametrize(
    ("custom_resource", "options", "action"),
    [
        (False, {}, "kept"),
        (False, {"delete_crds": True}, "pruned"),
        (True, {"delete_crds": True}, "kept"),
        (True, {"delete_crds": True, "delete_custom_resources": True}, "pruned"),
        (False, {"delete_custom_resources": True}, "kept"),
    ],
)
def test_definitions_stay_unless_told(cluster: Any, custom_resource: bool, options: Any, action: str) -> None:
    install(cluster, crd())
    if custom_resource:
        cluster.edit("user", item("Gateway", "g") | {"apiVersion": "networking.istio.io/v1"})
    plan = install(cluster, **options)
    assert actions(plan) == [f"{action} CustomResourceDefinition gateways"]
    assert _plan.changes(plan) == (action == "pruned")


def test_absent_takes_the_marked_and_the_rendered_webhooks_first(cluster: Any) -> None:
    mutating = webhook("MutatingWebhookConfiguration", "inject")
    deployment = item("Deployment", "istiod", spec={})
    install(cluster, config(), deployment)
    cluster.edit("istioctl", mutating)
    cluster.edit("user", config("mine"))
    planner = Planner(cluster, HUB)
    plan = planner.absent([config(), mutating, config("never-there")])
    assert actions(plan) == [
        "pruned MutatingWebhookConfiguration inject",
        "pruned Deployment istiod",
        "pruned ConfigMap istio",
    ]
    cluster.writes.clear()
    planner.carry_out(plan, foreground=True)
    assert cluster.writes[1] == "delete Deployment istiod (Foreground)"
    assert [key[2] for key in cluster.store if key[0] == "ConfigMap"] == ["mine"]
    assert Planner(cluster, HUB).absent([config(), mutating]) == []
    assert cluster.get("", "Namespace", "istio-system")


def test_absent_leaves_what_is_being_deleted(cluster: Any) -> None:
    install(cluster, config())
    cluster.store["ConfigMap", "istio-system", "istio"]["metadata"]["deletionTimestamp"] = "2026-11-23T00:00:00Z"
    assert Planner(cluster, HUB).absent([]) == []


@pytest.mark.parametrize("rendered", [{}, {"failurePolicy": "Ignore"}])
def test_what_istiod_writes_into_webhooks_is_no_difference(cluster: Any, rendered: Any) -> None:
    install(cluster, webhook(**rendered))
    istiods = webhook(failurePolicy="Fail")
    istiods["webhooks"][0]["clientConfig"]["caBundle"] = "Zm9v"
    cluster.edit("pilot-discovery", istiods)
    plan = Planner(cluster, HUB).present([webhook(**rendered)])
    policies = [entry.definition["webhooks"][0].get("failurePolicy") for entry in plan]
    assert policies == ["Fail" if rendered else None]


def test_a_rendered_ca_bundle_that_istiod_replaced_stays(cluster: Any) -> None:
    rendered = webhook(clientConfig={"url": "u", "caBundle": "b3Vycw=="})
    install(cluster, rendered)
    cluster.edit("pilot-discovery", webhook(clientConfig={"url": "u", "caBundle": "aXN0aW9k"}))
    assert actions(install(cluster, rendered)) == []
    cluster.edit("kubectl-edit", webhook(clientConfig={"url": "u"}))
    assert actions(install(cluster, rendered)) == ["changed ValidatingWebhookConfiguration check"]
    renewed = webhook(clientConfig={"url": "u", "caBundle": "bmV3"})
    assert actions(install(cluster, renewed)) == ["changed ValidatingWebhookConfiguration check"]


def test_secrets_are_masked(cluster: Any) -> None:
    install(cluster, item("Secret", "s", data={"same": "czE=", "new": "czI="}))
    plan = install(cluster, item("Secret", "s", data={"same": "czE=", "new": "czM="}))
    shown = str(_plan.diff(plan))
    assert not any(secret in shown for secret in ("czE=", "czI=", "czM="))
    assert (plan[0].after or {})["data"] == {"same": "<hidden>", "new": "<hidden, changed>"}


def test_diff_shows_changed_objects_and_names_the_others(cluster: Any) -> None:
    install(cluster, config(), config("old"))
    found = _plan.diff(Planner(cluster, HUB).present([config(mesh="b"), config("new")]))
    assert [(part["before_header"], part["before"][:30], part["after"][:30]) for part in found[1:]] == [
        ("created", "", "ConfigMap istio-system/new\n"),
        ("pruned", "ConfigMap istio-system/old\n", ""),
    ]
    assert found[0]["after_header"] == "ConfigMap istio-system/istio (v1)"
    assert "  mesh: a\n" in found[0]["before"]
    assert "  mesh: b\n" in found[0]["after"]


def test_the_id_of_an_operator_fits_into_a_label() -> None:
    assert HUB.id == "istio-system.hub"
    names = {Operator("n" * 60, end).id for end in ("one", "two", "o" * 63)}
    assert Counter(map(len, names)) == {63: 3}


@pytest.mark.parametrize(
    ("live", "desired", "expected"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 1}, {"a": 1, "b": {}}, True),
        ({"a": 1}, {"a": 1, "b": []}, True),
        ({"a": [{"n": 1, "default": 2}]}, {"a": [{"n": 1}]}, True),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"a": [2, 1]}, {"a": [1, 2]}, False),
        ({"a": "1"}, {"a": 1}, False),
        ({"a": True}, {"a": 1}, False),
        ({"a": {"b": 1}}, {"a": "b"}, False),
        ({"a": "x"}, {"a": {"b": 1}}, False),
        ({"a": "x"}, {"a": [1]}, False),
    ],
)
def test_covers(live: Object, desired: Object, expected: bool) -> None:
    assert _plan.covers(live, desired) is expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ('.spec.containers[name="a"].image', True),
        ('.spec.containers[name="b"].image', False),
        ('.spec.containers[name="c"].image', False),
        ('.spec.ports[port=80,protocol="TCP"].name', True),
        (".metadata.labels.app.kubernetes.io/name", True),
        (".metadata.labels.app.kubernetes.io/part-of", False),
        ('.metadata.finalizers[="x"]', True),
        (".spec.unheard-of", False),
    ],
)
def test_same_at(path: str, expected: bool) -> None:
    one = {
        "metadata": {"labels": {"app.kubernetes.io/name": "a", "app": "b"}, "finalizers": ["x"]},
        "spec": {
            "containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}],
            "ports": [{"port": 80, "protocol": "UDP"}, {"port": 80, "protocol": "TCP", "name": "http"}],
        },
    }
    other = {
        "metadata": {"labels": {"app.kubernetes.io/name": "a", "app.kubernetes.io/part-of": "x"}, "finalizers": ["x"]},
        "spec": {
            "containers": [{"name": "b", "image": "2"}, {"name": "a", "image": "1"}],
            "ports": [{"port": 80, "protocol": "TCP", "name": "http"}],
        },
    }
    assert _plan.same_at(path, one, other) is expected


def test_definition_that_is_never_established(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_plan, "_is_established", lambda _crd: False)
    with pytest.raises(PlanError, match=r"gateways was applied, but is not Established after 30 s"):
        install(cluster, crd())
