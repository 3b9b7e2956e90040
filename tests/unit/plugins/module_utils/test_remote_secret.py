"""Tests of RemoteSecret over two clusters in memory."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest
import yaml
from ansible_collections.meshfleet.istio.plugins.module_utils import _remote_secret as remote
from ansible_collections.meshfleet.istio.plugins.module_utils._remote_secret import RemoteSecret, RemoteSecretError

NAMESPACE = "istio-system"
ACCOUNT = "istio-reader-service-account"
TOKEN_SECRET = f"{ACCOUNT}-istio-remote-secret-token"
CA = "-----BEGIN CERTIFICATE-----\nQUFB\n-----END CERTIFICATE-----\n"
OTHER_CA = "-----BEGIN CERTIFICATE-----\nQkJC\n-----END CERTIFICATE-----\n"


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def jwt(claims: Any) -> str:
    return f"head.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.signature"


class Cluster:
    """Namespaces, ServiceAccounts and Secrets; ``fills``: whether a controller manager fills token Secrets."""

    def __init__(self, name: str, fills: bool = True, ca: str | None = CA) -> None:
        self.name = name
        self.server = f"https://{name}.example.com:6443"
        self.ca_data = ca.encode() if ca else None
        self.fills = fills
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.writes: list[str] = []
        self.patches: list[dict[str, Any]] = []

    def add(self, kind: str, name: str, **fields: Any) -> None:
        metadata = {"name": name, **fields.pop("metadata", {})}
        self.objects[kind, name] = {"kind": kind, "metadata": metadata, **fields}

    def add_token(self, name: str, token: str, account: str = ACCOUNT) -> None:
        metadata = {"annotations": {remote.ACCOUNT_ANNOTATION: account}}
        self.add("Secret", name, type=remote.TOKEN_TYPE, metadata=metadata)
        self.objects["Secret", name]["data"] = {"token": encode(token), "ca.crt": encode(CA)}

    def get(self, _api_version: str, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        assert namespace == (None if kind == "Namespace" else NAMESPACE)
        return copy.deepcopy(self.objects.get((kind, name)))

    def list(
        self, _api_version: str, kind: str, _namespace: str, label_selector: str = "", field_selector: str = ""
    ) -> list[dict[str, Any]]:
        label, _equals, value = label_selector.partition("=")
        return [
            copy.deepcopy(item)
            for (item_kind, _name), item in self.objects.items()
            if item_kind == kind
            and (not label or (item["metadata"].get("labels") or {}).get(label) == value)
            and (not field_selector or field_selector == f"type={item.get('type')}")
        ]

    def create(self, definition: dict[str, Any]) -> None:
        name = definition["metadata"]["name"]
        self.writes.append(f"create {name}")
        self.objects["Secret", name] = copy.deepcopy(definition)
        if definition["type"] == remote.TOKEN_TYPE and self.fills:
            self.add_token(name, "fresh-token")

    def patch_merge(self, _version: str, kind: str, name: str, _namespace: str, patch: dict[str, Any]) -> None:
        self.writes.append(f"patch {name}")
        self.patches.append(patch)
        live = self.objects[kind, name]
        live["metadata"].update(patch["metadata"])
        data = {**live.get("data", {}), **patch.get("data", {})}
        live["data"] = {key: value for key, value in data.items() if value is not None}

    def delete(self, _api_version: str, kind: str, name: str, _namespace: str) -> bool:
        self.writes.append(f"delete {name}")
        return self.objects.pop((kind, name), None) is not None


class Fleet:
    """A hub and a managed cluster m1, both ready for a remote secret."""

    def __init__(self) -> None:
        self.hub: Any = Cluster("hub")
        self.managed: Any = Cluster("m1")
        self.hub.add("Namespace", NAMESPACE)
        self.managed.add("ServiceAccount", ACCOUNT)
        self.hidden: set[str] = set()
        self.now = 0.0

    def secret(self, check_mode: bool = False, name: str = "m1") -> RemoteSecret:
        return RemoteSecret(
            self.hub,
            name,
            NAMESPACE,
            ACCOUNT,
            check_mode,
            self.hidden.add,
            sleep=self.sleep,
            clock=lambda: self.now,
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def present(self, check_mode: bool = False, server: str | None = None) -> dict[str, Any]:
        return self.secret(check_mode).present(self.managed, server)

    @property
    def writes(self) -> list[str]:
        return [*self.managed.writes, *self.hub.writes]

    def forget(self) -> None:
        self.managed.writes.clear()
        self.hub.writes.clear()

    @property
    def live(self) -> Any:
        return self.hub.objects["Secret", "istio-remote-secret-m1"]

    def kubeconfig(self) -> Any:
        return yaml.safe_load(base64.b64decode(self.live["data"]["m1"]))


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.mark.parametrize("name", ["", "A", "a_b", "a.b", "-a", "a-", "a" * 64, "a\n"])
def test_check_cluster_name_refuses(name: str, fleet: Fleet) -> None:
    with pytest.raises(RemoteSecretError, match="is not a DNS-1123 label"):
        fleet.secret(name=name)


@pytest.mark.parametrize(
    "server",
    ["", "m1:6443", "http://m1", "https://", "https://m1:port", "https://[::1", "https://user@m1", "https://m1?a"],
)
def test_check_server_refuses(server: str) -> None:
    with pytest.raises(RemoteSecretError, match=r"cluster m1 is .* which istiod cannot use. Set the option server"):
        remote.check_server(server, "m1")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "a.localhost", "[::1]", "0.0.0.0", "[::]"])
def test_check_server_refuses_loopback(host: str) -> None:
    with pytest.raises(RemoteSecretError, match="this machine only"):
        remote.check_server(f"https://{host}:6443", "m1")


@pytest.mark.parametrize("host", ["10.0.0.1", "localhost.example.com", "[fd00::1]"])
def test_check_server(host: str) -> None:
    remote.check_server(f"https://{host}:6443", "m1")


def test_bundle_is_the_accounts_where_that_is_enough() -> None:
    assert remote.bundle(CA, "") == CA
    assert remote.bundle(CA + OTHER_CA, CA.replace("\n", "\r\n")) == CA + OTHER_CA
    assert remote.bundle(CA, OTHER_CA) == CA + OTHER_CA


def test_expiry() -> None:
    assert remote.expiry(jwt({"exp": 1795564800})) == "2026-11-25T00:00:00Z"
    for token in ("", "opaque", "a.%.c", jwt({}), jwt([]), jwt({"exp": "x"}), jwt({"exp": 10**30})):
        assert remote.expiry(token) is None


@pytest.mark.parametrize("text", ["", "[", "a: b", "{contexts: [], current-context: x}", "[1]"])
def test_credential_of_no_kubeconfig(text: str) -> None:
    assert remote.credential({"data": {"m1": encode(text)}}, "m1") is None
    assert remote.credential({"data": None}, "m1") is None


def test_present_makes_what_istioctl_makes(fleet: Fleet) -> None:
    outcome = fleet.present()
    assert (outcome["changed"], outcome["updated"], outcome["server"]) == (True, False, "https://m1.example.com:6443")
    assert fleet.writes == [f"create {TOKEN_SECRET}", "create istio-remote-secret-m1"]
    assert fleet.live["metadata"] == {
        "name": "istio-remote-secret-m1",
        "namespace": NAMESPACE,
        "labels": {"istio/multiCluster": "true"},
        "annotations": {"networking.istio.io/cluster": "m1"},
    }
    # Byte for byte: `istioctl create-remote-secret` 1.29.1 gave this layout for the same credential.
    assert base64.b64decode(fleet.live["data"]["m1"]).decode() == (
        "apiVersion: v1\nclusters:\n- cluster:\n"
        f"    certificate-authority-data: {encode(CA)}\n    server: https://m1.example.com:6443\n  name: m1\n"
        "contexts:\n- context:\n    cluster: m1\n    user: m1\n  name: m1\ncurrent-context: m1\nkind: Config\n"
        "users:\n- name: m1\n  user:\n    token: fresh-token\n"
    )
    assert "fresh-token" in fleet.hidden
    assert "fresh-token" not in json.dumps(outcome)


def test_present_again_changes_nothing(fleet: Fleet) -> None:
    fleet.present()
    fleet.forget()
    outcome = fleet.present()
    assert not outcome["changed"]
    assert fleet.writes == []
    assert [diff["before"] for diff in outcome["diff"]] == [diff["after"] for diff in outcome["diff"]]


def test_check_mode_on_empty_clusters(fleet: Fleet) -> None:
    fleet.hub.objects.clear()
    fleet.managed.objects.clear()
    outcome = fleet.present(check_mode=True)
    assert outcome["changed"]
    assert fleet.writes == []
    assert [diff["before"] for diff in outcome["diff"]] == [{}, {}]
    assert outcome["diff"][1]["after"]["token"] == "(masked, new)"


def test_check_mode_with_a_token_that_is_not_filled(fleet: Fleet) -> None:
    fleet.managed.add_token(TOKEN_SECRET, "")
    assert fleet.present(check_mode=True)["changed"]
    assert fleet.writes == []


@pytest.mark.parametrize("by_hand", [TOKEN_SECRET, "by-hand"])
def test_present_adopts_a_credential_that_works(fleet: Fleet, by_hand: str) -> None:
    fleet.managed.add_token(TOKEN_SECRET, "own-token")
    fleet.managed.add_token(by_hand, "live-token")
    config = remote.kubeconfig("m1", "https://m1.example.com:6443/", CA + OTHER_CA, "live-token")
    config["preferences"] = {}
    fleet.hub.add("Secret", "istio-remote-secret-m1", data={"m1": encode(json.dumps(config))})
    fleet.live["metadata"].update(
        labels={"istio/multiCluster": "true"}, annotations={"networking.istio.io/cluster": "m1"}
    )
    assert not fleet.present()["changed"]
    assert fleet.writes == []


def test_lost_label_comes_back_without_touching_the_data(fleet: Fleet) -> None:
    fleet.present()
    fleet.forget()
    fleet.live["metadata"].update(labels=None, annotations=None)
    outcome = fleet.present()
    assert (outcome["changed"], outcome["updated"]) == (True, False)
    assert "data" not in fleet.hub.patches[0]
    assert fleet.live["metadata"]["labels"] == {"istio/multiCluster": "true"}


@pytest.mark.parametrize("fault", ["server", "token", "ca", "data"])
def test_present_replaces_a_credential_that_does_not_work(fleet: Fleet, fault: str) -> None:
    fleet.present()
    fleet.forget()
    config = fleet.kubeconfig()
    if fault == "server":
        config["clusters"][0]["cluster"]["server"] = "https://old:6443"
    elif fault == "ca":
        config["clusters"][0]["cluster"]["certificate-authority-data"] = encode(OTHER_CA)
    elif fault == "token":
        config["users"][0]["user"]["token"] = "dead-token"
    text = "no kubeconfig" if fault == "data" else json.dumps(config)
    fleet.live["data"] = {"m1": encode(text), "stray": encode("x")}
    assert fleet.present(check_mode=True)["updated"]
    assert fleet.writes == []
    outcome = fleet.present()
    assert (outcome["changed"], outcome["updated"]) == (True, True)
    assert fleet.writes == ["patch istio-remote-secret-m1"]
    assert list(fleet.live["data"]) == ["m1"]
    assert fleet.kubeconfig()["users"][0]["user"]["token"] == "fresh-token"
    shown = json.dumps(outcome["diff"])
    assert "dead-token" not in shown
    assert "fresh-token" not in shown
    assert ("masked, new" in shown) == (fault in ("token", "data"))


def test_server_overrides(fleet: Fleet) -> None:
    fleet.managed.server = "https://127.0.0.1:6443"
    with pytest.raises(RemoteSecretError, match=r"m1 has the address https://127\.0\.0\.1:6443"):
        fleet.present()
    assert fleet.present(server="https://10.0.0.1:6443/")["server"] == "https://10.0.0.1:6443"
    assert fleet.kubeconfig()["clusters"][0]["cluster"]["server"] == "https://10.0.0.1:6443"
    with pytest.raises(RemoteSecretError, match="is not an https URL"):
        fleet.present(server="m1:6443")


def test_ca_of_the_kubeconfig_is_added(fleet: Fleet) -> None:
    fleet.managed.ca_data = OTHER_CA.encode()
    fleet.present()
    ca = fleet.kubeconfig()["clusters"][0]["cluster"]["certificate-authority-data"]
    assert base64.b64decode(ca).decode() == CA + OTHER_CA


def test_hub_and_managed_are_one(fleet: Fleet) -> None:
    fleet.managed.server = fleet.hub.server
    with pytest.raises(RemoteSecretError, match=r"are the same API server, https://hub\.example\.com:6443"):
        fleet.present(server="https://10.0.0.1:6443")


def test_no_service_account(fleet: Fleet) -> None:
    fleet.managed.objects.clear()
    with pytest.raises(RemoteSecretError, match=r"m1 has no ServiceAccount .*Install the managed cluster's Istio"):
        fleet.present()
    assert fleet.writes == []


def test_no_namespace_on_the_hub(fleet: Fleet) -> None:
    fleet.hub.objects.clear()
    with pytest.raises(RemoteSecretError, match="hub hub has no namespace istio-system. Install the hub first"):
        fleet.present()
    assert fleet.writes == []


@pytest.mark.parametrize(
    ("key", "server", "message"),
    [
        ("m1", "https://x", "m1 is already registered on the hub hub by Secret istio-system/other"),
        ("old", "https://m1.example.com:6443", "already registered on the hub hub as cluster old"),
    ],
)
def test_another_secret_of_the_same_cluster(fleet: Fleet, key: str, server: str, message: str) -> None:
    config = json.dumps(remote.kubeconfig(key, server, CA, "a-token"))
    fleet.hub.add("Secret", "other", data={key: encode(config)}, metadata={"labels": {"istio/multiCluster": "true"}})
    with pytest.raises(RemoteSecretError, match=message):
        fleet.present()
    assert fleet.writes == []
    assert ("a-token" in fleet.hidden) == (key == "old")


def test_name_of_the_token_secret_is_taken(fleet: Fleet) -> None:
    fleet.managed.add("Secret", TOKEN_SECRET, type="Opaque")
    with pytest.raises(RemoteSecretError, match="is not a token of ServiceAccount"):
        fleet.present()
    assert fleet.writes == []


def test_token_that_never_comes(fleet: Fleet) -> None:
    fleet.managed.fills = False
    with pytest.raises(RemoteSecretError, match="m1 got no token within 20 s. Does kube-controller-manager run"):
        fleet.present()
    assert fleet.hub.writes == []


def test_absent(fleet: Fleet) -> None:
    fleet.present()
    fleet.forget()
    planned = fleet.secret(check_mode=True).absent(fleet.managed)
    assert fleet.writes == []
    outcome = fleet.secret().absent(fleet.managed)
    assert outcome == planned
    assert outcome["changed"]
    assert "fresh-token" not in json.dumps(outcome)
    assert fleet.hub.writes == ["delete istio-remote-secret-m1"]
    assert fleet.managed.writes == [f"delete {TOKEN_SECRET}"]
    fleet.forget()
    assert not fleet.secret().absent(fleet.managed)["changed"]
    assert fleet.writes == []


def test_absent_without_the_managed_cluster(fleet: Fleet) -> None:
    fleet.present()
    secret = fleet.secret()
    assert secret.absent(None)["changed"]
    assert "its token lives on" in secret.warnings[0]


def test_absent_leaves_a_token_that_others_made(fleet: Fleet) -> None:
    fleet.present()
    fleet.managed.add_token("by-hand", "fresh-token")
    secret = fleet.secret()
    secret.absent(fleet.managed)
    assert "Secret istio-system/by-hand, which this module did not make" in secret.warnings[0]
    assert ("Secret", "by-hand") in fleet.managed.objects


def test_credentials_on(fleet: Fleet) -> None:
    fleet.present()
    token = jwt({"exp": 1795564800})
    config = json.dumps(remote.kubeconfig("b", "https://b:6443", CA, token))
    metadata = {"labels": {"istio/multiCluster": "true"}}
    fleet.hub.add("Secret", "two", data={"b": encode(config), "a": encode("x")}, metadata=metadata)
    found = remote.credentials_on(fleet.hub, NAMESPACE)
    assert found == [
        {"cluster": "a", "secret": "two", "server": None, "expires": None},
        {"cluster": "b", "secret": "two", "server": "https://b:6443", "expires": "2026-11-25T00:00:00Z"},
        {
            "cluster": "m1",
            "secret": "istio-remote-secret-m1",
            "server": "https://m1.example.com:6443",
            "expires": None,
        },
    ]
