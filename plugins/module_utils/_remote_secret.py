# Copyright: (c) 2026, meshfleet.istio contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""One managed cluster's credential on the hub, as `istioctl create-remote-secret` makes it. Internal use only."""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import json
import re
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Callable
from urllib.parse import urlsplit

from ansible.module_utils.common.yaml import yaml_dump, yaml_load
from ansible_collections.meshfleet.istio.plugins.module_utils._errors import MeshError

if TYPE_CHECKING:
    from ansible_collections.meshfleet.istio.plugins.module_utils._kube import Cluster

LABEL = "istio/multiCluster"
ANNOTATION = "networking.istio.io/cluster"
ACCOUNT_ANNOTATION = "kubernetes.io/service-account.name"
TOKEN_TYPE = "kubernetes.io/service-account-token"
# Seconds for the cluster's controller manager to fill a token Secret (istioctl gives it 5).
TOKEN_TIMEOUT = 20.0
TOKEN_INTERVAL = 0.2

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_CLUSTER_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class RemoteSecretError(MeshError):
    """A remote secret cannot be made as asked."""


def check_cluster_name(name: str) -> None:
    """Raises RemoteSecretError unless the name is a DNS-1123 label, as istioctl wants it."""
    if not _CLUSTER_NAME.fullmatch(name):
        raise RemoteSecretError(
            f"cluster_name: {name!r} is not a DNS-1123 label. Use at most 63 lower-case letters, digits and '-', with a"
            " letter or digit at both ends; it is the name the cluster's proxies use (global.multiCluster.clusterName)."
        )


def check_server(server: str, cluster: str) -> None:
    """Raises RemoteSecretError unless the URL is one that istiod, a pod on another cluster, can use."""
    try:
        parts = urlsplit(server)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    if parts.scheme != "https" or not host or "@" in parts.netloc or parts.query or parts.fragment:
        raise RemoteSecretError(
            f"The API server URL of cluster {cluster} is {server!r}, which istiod cannot use. Set the option server to"
            " its URL as the hub's pods reach it, for example https://api.mcsdemo1.example.com:6443."
        )
    if is_loopback(host):
        raise RemoteSecretError(
            f"The API server of cluster {cluster} has the address {server} in the kubeconfig, which is this machine"
            " only: istiod on the hub cannot reach it. Set the option server to its URL as the hub's pods reach it."
        )


def is_loopback(host: str) -> bool:
    """Whether a host (without brackets) is an address that only its own machine can reach."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def secret_name(cluster_name: str) -> str:
    """Name of the Secret on the hub."""
    return f"istio-remote-secret-{cluster_name}"


def token_secret_name(service_account: str) -> str:
    """Name of the Secret on the managed cluster that holds the long-lived token."""
    return f"{service_account}-istio-remote-secret-token"


def certificates(pem: str) -> list[str]:
    """The certificates of a PEM bundle, each without white space at its lines' ends."""
    return ["\n".join(line.strip() for line in block.splitlines()) for block in _CERTIFICATE.findall(pem)]


def bundle(account_ca: str, kubeconfig_ca: str) -> str:
    """The CA that istiod is to verify the API server with.

    The ServiceAccount's ca.crt, byte for byte as istioctl takes it, plus those certificates of the kubeconfig's CA that
    it lacks: a server certificate of the user's own (OpenShift's named certificates) verifies by the latter only, and
    the kubeconfig has just proved that it does.
    """
    known = set(certificates(account_ca))
    missing = [block for block in certificates(kubeconfig_ca) if block not in known]
    return account_ca if not missing else "".join(f"{block}\n" for block in [*certificates(account_ca), *missing])


def kubeconfig(cluster_name: str, server: str, ca: str, token: str) -> dict[str, Any]:
    """The kubeconfig in the Secret's data."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": cluster_name,
                "cluster": {"server": server, "certificate-authority-data": _encode(ca)},
            }
        ],
        "users": [{"name": cluster_name, "user": {"token": token}}],
        "contexts": [{"name": cluster_name, "context": {"cluster": cluster_name, "user": cluster_name}}],
        "current-context": cluster_name,
    }


def credential(secret: dict[str, Any], key: str) -> dict[str, str] | None:
    """``server``, ``ca`` and ``token`` of the current context in one data key; None when it is no such kubeconfig."""
    try:
        config = yaml_load(_decode(secret["data"][key]))
        context = _named(config["contexts"], config["current-context"])["context"]
        cluster = _named(config["clusters"], context["cluster"])["cluster"]
        user = _named(config["users"], context["user"]).get("user") or {}
        return {
            "server": str(cluster["server"]),
            "ca": _decode(cluster.get("certificate-authority-data") or ""),
            "token": str(user.get("token") or ""),
        }
    # yaml_load comes from whichever YAML library there is: its errors have no common name here.
    except Exception:  # pylint: disable=broad-except
        return None


def expiry(token: str) -> str | None:
    """When a ServiceAccount token (a JWT, not verified here) expires, ISO 8601 in UTC; None when it does not."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return datetime.fromtimestamp(claims["exp"], timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, OSError):
        return None


def credentials_on(hub: Cluster, namespace: str) -> list[dict[str, Any]]:
    """Each remote secret's clusters: ``cluster``, ``secret``, ``server``, ``expires``; never a token.

    ``server`` is None where the data is no kubeconfig, ``expires`` where the token has no end.
    """
    found = []
    for secret in hub.list("v1", "Secret", namespace, label_selector=f"{LABEL}=true"):
        for key in sorted(secret.get("data") or {}):
            held = credential(secret, key)
            found.append(
                {
                    "cluster": key,
                    "secret": secret["metadata"]["name"],
                    "server": held["server"] if held else None,
                    "expires": expiry(held["token"]) if held else None,
                }
            )
    return sorted(found, key=lambda entry: (entry["cluster"], entry["secret"]))


class RemoteSecret:
    """Brings one cluster's credential to the hub, or takes it away.

    ``hide`` is told every secret value as soon as it is known, so that no message can carry it.
    """

    def __init__(
        self,
        hub: Cluster,
        cluster_name: str,
        namespace: str,
        service_account: str,
        check_mode: bool,
        hide: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_cluster_name(cluster_name)
        self.hub = hub
        self.cluster_name = cluster_name
        self.namespace = namespace
        self.service_account = service_account
        self.check_mode = check_mode
        self.warnings: list[str] = []
        self._hide = hide
        self._sleep = sleep
        self._clock = clock

    @property
    def name(self) -> str:
        return secret_name(self.cluster_name)

    @property
    def token_name(self) -> str:
        return token_secret_name(self.service_account)

    def present(self, managed: Cluster, server: str | None) -> dict[str, Any]:
        """``changed``, ``updated`` (an existing credential was replaced), ``server``, ``diff``.

        Everything that can be wrong is found before anything is written.
        """
        url = (server or managed.server).rstrip("/")
        if server is None:
            check_server(url, managed.name)
        elif urlsplit(url).scheme != "https":
            raise RemoteSecretError(
                f"server: {server!r} is not an https URL, for example https://api.mcsdemo1.example.com:6443."
            )
        if self.hub.server == managed.server:
            raise RemoteSecretError(
                f"The hub ({self.hub.name}) and the managed cluster {self.cluster_name} ({managed.name}) are the same"
                f" API server, {managed.server}. Check context and hub.context."
            )
        live = self._live_on_hub(url)
        account = managed.get("v1", "ServiceAccount", self.service_account, self.namespace)
        if account is None and not self.check_mode:
            raise RemoteSecretError(
                f"Cluster {managed.name} has no ServiceAccount {self.namespace}/{self.service_account}. Install the"
                " managed cluster's IstioOperator first (meshfleet.istio.istio_operator), or set service_account."
            )
        if live is None and not self.check_mode and self.hub.get("v1", "Namespace", self.namespace) is None:
            raise RemoteSecretError(
                f"The hub {self.hub.name} has no namespace {self.namespace}. Install the hub first, or set namespace."
            )
        tokens = self._token_secrets(managed)
        held = credential(live, self.cluster_name) if live else None
        self._hide_credential(held)
        in_use = next((secret for secret in tokens if held and _field(secret, "token") == held["token"]), None)
        source = in_use or next((secret for secret in tokens if secret["metadata"]["name"] == self.token_name), None)
        create_token = source is None
        if create_token and not self.check_mode:
            self._refuse_foreign_token_secret(managed)
            managed.create(self._token_definition())
        if not self.check_mode:
            source = self._filled(managed, source)
        wanted = self._wanted(source, managed, url)
        same = wanted is not None and held is not None and _same(held, wanted)
        labelled = live is not None and self._is_labelled(live)
        if not self.check_mode and wanted is not None and not (same and labelled):
            self._write(live, None if same else wanted)
        diff = [self._hub_diff(live, held, held if same else wanted, url)]
        if create_token:
            diff.insert(0, self._token_diff(managed, before=False, after=True))
        return {
            "changed": create_token or not (same and labelled),
            "updated": live is not None and not same,
            "server": url,
            "diff": diff,
        }

    def absent(self, managed: Cluster | None) -> dict[str, Any]:
        """Delete the hub's Secret, then the token. ``managed`` None: the token cannot be revoked now."""
        live = self.hub.get("v1", "Secret", self.name, self.namespace)
        held = credential(live, self.cluster_name) if live else None
        self._hide_credential(held)
        tokens = self._token_secrets(managed) if managed else []
        own = next((secret for secret in tokens if secret["metadata"]["name"] == self.token_name), None)
        others = [
            secret["metadata"]["name"]
            for secret in tokens
            if secret is not own and held and _field(secret, "token") == held["token"]
        ]
        if not self.check_mode:
            if live is not None:
                self.hub.delete("v1", "Secret", self.name, self.namespace)
            if managed is not None and own is not None:
                managed.delete("v1", "Secret", self.token_name, self.namespace)
        if managed is None:
            self.warnings.append(
                f"Cluster {self.cluster_name} cannot be reached: its token lives on. Delete Secret"
                f" {self.namespace}/{self.token_name} there to revoke it."
            )
        for other in others:
            self.warnings.append(
                f"The token of cluster {self.cluster_name} came from Secret {self.namespace}/{other}, which this module"
                " did not make and leaves. Delete it to revoke the token."
            )
        diff = []
        if live is not None:
            diff.append(self._hub_diff(live, held, None, None))
        if managed is not None and own is not None:
            diff.append(self._token_diff(managed, before=True, after=False))
        return {"changed": live is not None or own is not None, "updated": False, "server": None, "diff": diff}

    def _live_on_hub(self, server: str) -> dict[str, Any] | None:
        """The Secret on the hub. Raises RemoteSecretError when another one claims this cluster."""
        for secret in self.hub.list("v1", "Secret", self.namespace, label_selector=f"{LABEL}=true"):
            name = secret["metadata"]["name"]
            if name == self.name:
                continue
            for key in secret.get("data") or {}:
                # istiod ignores a cluster's second Secret, and counts endpoints twice that it reads under two names.
                if key == self.cluster_name:
                    raise RemoteSecretError(
                        f"Cluster {self.cluster_name} is already registered on the hub {self.hub.name} by Secret"
                        f" {self.namespace}/{name}, and istiod ignores a second one. Delete that Secret first."
                    )
                held = credential(secret, key)
                self._hide_credential(held)
                if held and held["server"].rstrip("/") == server:
                    raise RemoteSecretError(
                        f"The API server {server} is already registered on the hub {self.hub.name} as cluster {key}"
                        f" (Secret {self.namespace}/{name}). Check context and cluster_name of {self.cluster_name};"
                        " after a rename remove the old name first (state: absent)."
                    )
        # By name, not from the list: a Secret that lost its label is still there.
        return self.hub.get("v1", "Secret", self.name, self.namespace)

    def _token_secrets(self, managed: Cluster) -> list[dict[str, Any]]:
        """The token Secrets of the ServiceAccount."""
        found = managed.list("v1", "Secret", self.namespace, field_selector=f"type={TOKEN_TYPE}")
        for secret in found:
            self._hide(_field(secret, "token"))
        return [
            secret
            for secret in found
            if (secret["metadata"].get("annotations") or {}).get(ACCOUNT_ANNOTATION) == self.service_account
        ]

    def _refuse_foreign_token_secret(self, managed: Cluster) -> None:
        if managed.get("v1", "Secret", self.token_name, self.namespace) is not None:
            raise RemoteSecretError(
                f"Secret {self.namespace}/{self.token_name} on cluster {managed.name} is not a token of ServiceAccount"
                f" {self.service_account}. Delete it, or set service_account."
            )

    def _token_definition(self) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": TOKEN_TYPE,
            "metadata": {
                "name": self.token_name,
                "namespace": self.namespace,
                "annotations": {ACCOUNT_ANNOTATION: self.service_account},
            },
        }

    def _filled(self, managed: Cluster, secret: dict[str, Any] | None) -> dict[str, Any]:
        """The token Secret (None: it was just made) once the controller manager has put token and CA into it."""
        name = secret["metadata"]["name"] if secret else self.token_name
        deadline = self._clock() + TOKEN_TIMEOUT
        while True:
            if secret is not None and _field(secret, "token") and _field(secret, "ca.crt"):
                self._hide(_field(secret, "token"))
                return secret
            if self._clock() >= deadline:
                raise RemoteSecretError(
                    f"Secret {self.namespace}/{name} on cluster {managed.name} got no token within"
                    f" {TOKEN_TIMEOUT:.0f} s. Does kube-controller-manager run there? Run again when it does."
                )
            self._sleep(TOKEN_INTERVAL)
            secret = managed.get("v1", "Secret", name, self.namespace)

    def _wanted(self, source: dict[str, Any] | None, managed: Cluster, server: str) -> dict[str, str] | None:
        """The credential to be; None in check mode when there is no token yet."""
        if source is None or not _field(source, "token"):
            return None
        ca = bundle(_field(source, "ca.crt"), (managed.ca_data or b"").decode("utf-8", "replace"))
        return {"server": server, "ca": ca, "token": _field(source, "token")}

    def _is_labelled(self, live: dict[str, Any]) -> bool:
        metadata = live["metadata"]
        return (metadata.get("labels") or {}).get(LABEL) == "true" and (metadata.get("annotations") or {}).get(
            ANNOTATION
        ) == self.cluster_name

    def _write(self, live: dict[str, Any] | None, wanted: dict[str, str] | None) -> None:
        """Create or change the Secret on the hub; ``wanted`` None leaves the data alone."""
        metadata: dict[str, Any] = {"labels": {LABEL: "true"}, "annotations": {ANNOTATION: self.cluster_name}}
        body: dict[str, Any] = {"metadata": metadata}
        if wanted is not None:
            text = yaml_dump(
                kubeconfig(self.cluster_name, wanted["server"], wanted["ca"], wanted["token"]), default_flow_style=False
            )
            self._hide(_encode(text))
            # A key of null is removed by the merge: each other key would be one more cluster.
            others = dict.fromkeys((live or {}).get("data") or {})
            body["data"] = {**others, self.cluster_name: _encode(text)}
        if live is not None:
            self.hub.patch_merge("v1", "Secret", self.name, self.namespace, body)
            return
        metadata.update(name=self.name, namespace=self.namespace)
        self.hub.create({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", **body})

    def _hide_credential(self, held: dict[str, str] | None) -> None:
        if held:
            self._hide(held["token"])

    def _hub_diff(
        self,
        live: dict[str, Any] | None,
        held: dict[str, str] | None,
        wanted: dict[str, str] | None,
        server: str | None,
    ) -> dict[str, Any]:
        """Before and after of the hub's Secret. Tokens appear as whether they differ, CAs as a digest."""
        before: dict[str, Any] = {}
        after: dict[str, Any] = {}
        if live is not None:
            metadata = live["metadata"]
            before = {
                "labels": metadata.get("labels") or {},
                "annotations": {ANNOTATION: (metadata.get("annotations") or {}).get(ANNOTATION)},
                **_shown(held, "(masked)"),
            }
        if server is not None:
            planned = wanted or {"server": server, "ca": "", "token": ""}
            same_token = held is not None and held["token"] == planned["token"]
            after = {
                "labels": {**(before.get("labels") or {}), LABEL: "true"},
                "annotations": {ANNOTATION: self.cluster_name},
                **_shown(planned, "(masked)" if same_token else "(masked, new)"),
            }
        header = f"Secret {self.namespace}/{self.name} on {self.hub.name}"
        return {"before_header": header, "after_header": header, "before": before, "after": after}

    def _token_diff(self, managed: Cluster, before: bool, after: bool) -> dict[str, Any]:
        header = f"Secret {self.namespace}/{self.token_name} on {managed.name}"
        shown = {"type": TOKEN_TYPE, "annotations": {ACCOUNT_ANNOTATION: self.service_account}, "token": "(masked)"}
        return {
            "before_header": header,
            "after_header": header,
            "before": shown if before else {},
            "after": shown if after else {},
        }


def _same(held: dict[str, str], wanted: dict[str, str]) -> bool:
    return (
        held["token"] == wanted["token"]
        and held["server"].rstrip("/") == wanted["server"]
        and set(certificates(held["ca"])) >= set(certificates(wanted["ca"]))
    )


def _shown(held: dict[str, str] | None, token: str) -> dict[str, Any]:
    if held is None:
        return {"kubeconfig": "(not readable)"}
    digest = hashlib.sha256("\n".join(sorted(certificates(held["ca"]))).encode()).hexdigest()
    ca = f"sha256:{digest[:16]}" if held["ca"] else ""
    return {"server": held["server"], "certificate-authority": ca, "token": token}


def _named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(item for item in items if item["name"] == name)


def _field(secret: dict[str, Any], key: str) -> str:
    """One decoded data key; "" when it is not there."""
    return _decode((secret.get("data") or {}).get(key) or "")


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _decode(data: str) -> str:
    try:
        return base64.b64decode(data).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return ""
