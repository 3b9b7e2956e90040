# Copyright: (c) 2026, meshfleet.istio contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""One cluster's API server, in plain dicts. Internal use only.

The only importer of the Python of kubernetes and of kubernetes.core. Objects are the API's own JSON: the typed API
classes of kubernetes 37 cost 3 CPU-seconds to import, and kubernetes.core's discovery asks the server before a timeout
can be set and keeps a cache file in /tmp that outlives the cluster it describes.
"""

from __future__ import annotations

import json
import os
import re
import time
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from ansible.module_utils.basic import missing_required_lib
from ansible_collections.kubernetes.core.plugins.module_utils.args_common import (
    AUTH_ARG_MAP,
    AUTH_ARG_SPEC,
    AUTH_PROXY_HEADERS_SPEC,
)
from ansible_collections.meshfleet.istio.plugins.module_utils._errors import MeshError

try:
    import urllib3
    import yaml
    from kubernetes import client as kubernetes_client
    from kubernetes import config as kubernetes_config
    from kubernetes.client.rest import ApiException
    from kubernetes.dynamic import DynamicClient

    IMPORT_ERROR: str | None = None
except ImportError:
    IMPORT_ERROR = traceback.format_exc()

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

# Inside Cluster, which has a method of that name, list cannot be written.
Strings = list[str]

# Seconds. Connecting must fail fast; an answer may take as long as a slow admission webhook (30 s at most) needs.
CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 60.0

AUTH_OPTIONS: dict[str, Any] = {name: dict(spec) for name, spec in AUTH_ARG_SPEC.items()}
# kubernetes.core 6.2 marked kubeconfig as no_log, which censors every equal string of a result.
AUTH_OPTIONS["kubeconfig"] = {"type": "raw", "no_log": False}

_SECRET_FIELDS = {"token", "password", "client-key-data", "access-token", "refresh-token", "id-token", "client-secret"}


class ClusterError(MeshError):
    """A cluster refused, could not be reached, or could not be found.

    ``status``: the HTTP status, None when there was no answer. ``reason``: Kubernetes' reason, for example
    ``NotFound``, ``AlreadyExists``, ``Forbidden``, ``Invalid``; ``""`` when there is none.
    """

    def __init__(self, message: str, status: int | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class ConflictError(ClusterError):
    """Server-side apply met fields of other managers; ``conflicts`` lists ``(manager, field)``."""

    def __init__(self, message: str, conflicts: list[tuple[str, str]]) -> None:
        super().__init__(message, 409, "Conflict")
        self.conflicts = conflicts


def connect(module: AnsibleModule, auth: dict[str, Any] | None = None, option: str = "context") -> Cluster:
    """Connect to the cluster that ``auth`` (default: the module's own options) describes.

    ``option`` is the name under which the user gave the options, for the messages. Order as in kubernetes.core: host
    with credentials, then kubeconfig or context, then the service account of the pod, then the default kubeconfig.
    Raises ClusterError when the libraries, the kubeconfig, the context, the server or the rights are missing.
    """
    if IMPORT_ERROR is not None:
        raise ClusterError(f"{missing_required_lib('kubernetes')}\n{IMPORT_ERROR}")
    given = _with_environment(module.params if auth is None else auth)
    _protect_secrets(module, given.get("kubeconfig"))
    configuration, name = _configuration(given, option)
    configuration.retries = urllib3.Retry(total=2, connect=0)
    if not configuration.verify_ssl:  # The user's choice, not to be warned of at each request
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    api_client = kubernetes_client.ApiClient(configuration)
    impersonated = _impersonate(api_client, given)
    # The discoverer of the dynamic client is not used, see the top of this file.
    client = DynamicClient(api_client, discoverer=lambda *_args: None)
    cluster = Cluster(client, name or configuration.host, option, impersonated)
    cluster.check()
    return cluster


def _with_environment(options: dict[str, Any]) -> dict[str, Any]:
    """The auth options that are set, by option name, with kubernetes.core's K8S_AUTH_* variables as fallback."""
    result: dict[str, Any] = {}
    for name, spec in AUTH_ARG_SPEC.items():
        value = options.get(name)
        if value is None and name == "proxy_headers":
            headers = {key: os.environ.get(f"K8S_AUTH_PROXY_HEADERS_{key.upper()}") for key in AUTH_PROXY_HEADERS_SPEC}
            value = headers if any(headers.values()) else None
        elif value is None:
            other = next((key for key, mapped in AUTH_ARG_MAP.items() if mapped == name), name)
            value = os.environ.get(f"K8S_AUTH_{name.upper()}") or os.environ.get(f"K8S_AUTH_{other.upper()}") or None
            if value is not None and spec.get("type") == "bool":
                value = value.lower() not in ("0", "false", "no")
            elif value is not None and spec.get("type") == "list":
                value = [item for item in value.split(",") if item]
        if value is not None:
            result[name] = value
    return result


def _protect_secrets(module: AnsibleModule, kubeconfig: Any) -> None:
    """A kubeconfig given as a dictionary is not no_log as a whole; its credentials are."""
    if isinstance(kubeconfig, dict):
        for key, value in kubeconfig.items():
            if isinstance(value, str) and key in _SECRET_FIELDS and value:
                module.no_log_values.add(value)
            _protect_secrets(module, value)
    elif isinstance(kubeconfig, list):
        for item in kubeconfig:
            _protect_secrets(module, item)


def _configuration(given: dict[str, Any], option: str) -> tuple[Any, str]:
    """The client's configuration and the context's name ("" without one).

    A configuration of its own, not the library's global default: a module may talk to two clusters.
    """
    configuration = type.__call__(kubernetes_client.Configuration)
    name = ""
    explicit = given.get("host") and (
        given.get("api_key")
        or (given.get("username") and given.get("password"))
        or (given.get("client_cert") and given.get("client_key"))
    )
    if not explicit:
        in_cluster = not (given.get("kubeconfig") or given.get("context"))
        if in_cluster:
            try:
                kubernetes_config.load_incluster_config(client_configuration=configuration)
            except kubernetes_config.ConfigException:
                in_cluster = False
        if not in_cluster:
            name = _load_kubeconfig(configuration, given, option)
    for argument, attribute in (
        ("validate_certs", "verify_ssl"),
        ("ca_cert", "ssl_ca_cert"),
        ("client_cert", "cert_file"),
        ("client_key", "key_file"),
        ("username", "username"),
        ("password", "password"),
        ("proxy", "proxy"),
        ("no_proxy", "no_proxy"),
    ):
        if given.get(argument) is not None:
            setattr(configuration, attribute, given[argument])
    if given.get("host"):
        configuration.host = given["host"].rstrip("/")
    if given.get("api_key"):
        configuration.api_key = {"authorization": f"Bearer {given['api_key']}"}
    if given.get("proxy_headers"):
        configuration.proxy_headers = urllib3.util.make_headers(**given["proxy_headers"])
    for argument in ("ca_cert", "client_cert", "client_key"):
        path = given.get(argument)
        if path is not None and not os.access(path, os.R_OK):
            raise ClusterError(f"The file {path} of the option {argument} is missing or cannot be read.")
    return configuration, name


def _load_kubeconfig(configuration: Any, given: dict[str, Any], option: str) -> str:
    """Read the kubeconfig into ``configuration``; the name of the context that was used."""
    source = given.get("kubeconfig") or os.environ.get("KUBECONFIG") or "~/.kube/config"
    paths: list[str] = []
    if isinstance(source, dict):
        origin, documents = "the kubeconfig given as a dictionary", [source]
    else:
        origin = f"the kubeconfig {source}"
        paths = [os.path.expanduser(path) for path in str(source).split(os.pathsep) if path]
        documents = [_read_yaml(path) for path in paths if os.path.exists(path)]
        if not documents:
            raise ClusterError(
                f"The kubeconfig {source} does not exist. Set the option kubeconfig (or K8S_AUTH_KUBECONFIG or"
                " KUBECONFIG) to the path of a kubeconfig."
            )
    contexts = sorted({item["name"] for document in documents for item in document.get("contexts") or []})
    current = next((document["current-context"] for document in documents if document.get("current-context")), None)
    name = given.get("context") or current
    if name not in contexts:
        wanted = f"context {name}" if name else "current context"
        raise ClusterError(
            f"There is no {wanted} in {origin}; it has {', '.join(contexts) or 'no contexts'}. Set the"
            f" option {option} to one of them, or the option kubeconfig to the kubeconfig that has it."
        )
    arguments = {
        "context": name,
        "client_configuration": configuration,
        "persist_config": bool(given.get("persist_config")),
    }
    try:
        if isinstance(source, dict):
            kubernetes_config.load_kube_config_from_dict(source, **arguments)
        else:
            kubernetes_config.load_kube_config(os.pathsep.join(paths), **arguments)
    except (kubernetes_config.ConfigException, KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise ClusterError(f"The context {name} of {origin} (option {option}) cannot be used: {error}") from error
    return str(name)


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as stream:
            document = yaml.safe_load(stream)
    except OSError as error:
        raise ClusterError(f"The kubeconfig {path} (option kubeconfig) cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        # The parser's own message may quote a line with a credential.
        raise ClusterError(f"The kubeconfig {path} (option kubeconfig) is not valid YAML.") from error
    if not isinstance(document, dict):
        raise ClusterError(f"The kubeconfig {path} (option kubeconfig) is empty or not a kubeconfig.")
    return document


def _impersonate(api_client: Any, given: dict[str, Any]) -> bool:
    """Add the impersonation headers; whether there are any."""
    if given.get("impersonate_user"):
        api_client.set_default_header("Impersonate-User", given["impersonate_user"])
    for group in given.get("impersonate_groups") or []:
        # One header line per group: keys that read alike and yet are different keys of a dictionary.
        api_client.default_headers[_HeaderName("Impersonate-Group")] = group
    return bool(given.get("impersonate_user") or given.get("impersonate_groups"))


class _HeaderName(str):
    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def lower(self) -> _HeaderName:
        # urllib3 builds sets of lower-case names; they must stay apart.
        return self


class Cluster:
    """One API server. Objects are plain dicts of the API's JSON.

    Every method raises ClusterError when the server refuses or cannot be reached; the message says which cluster,
    what was asked, the server's reason and, where there is one, the remedy.

    ``name``: the context's name, else the host. ``server``: its URL. ``ca_data``: PEM, None when the system's
    authorities are used. ``version``: (major, minor). ``git_version``: for example ``v1.35.4``.
    """

    def __init__(self, client: Any, name: str, option: str = "context", impersonated: bool = False) -> None:
        self._client = client
        self._option = option
        self._impersonated = impersonated
        self._paths: dict[str, dict[str, tuple[str, bool]]] = {}
        self._groups: set[str] | None = None
        self.name = name
        self.server = str(client.configuration.host)
        self.version = (0, 0)
        self.git_version = ""

    @property
    def ca_data(self) -> bytes | None:
        """The authority the server's certificate is checked against (PEM)."""
        path = self._client.configuration.ssl_ca_cert
        if not path:
            return None
        with open(path, "rb") as stream:
            return stream.read()

    # Requests

    def check(self) -> None:
        """One cheap request, so that a cluster that is away or a dead credential fails before anything else does."""
        answer = self._json("GET", "/version", "read the server's version", timeout=CONNECT_TIMEOUT)
        digits = [re.match(r"\d+", str(answer.get(key, ""))) for key in ("major", "minor")]
        self.version = (int(digits[0].group()) if digits[0] else 0, int(digits[1].group()) if digits[1] else 0)
        self.git_version = str(answer.get("gitVersion", ""))

    def _send(
        self, method: str, path: str, what: str, body: Any = None, timeout: float = READ_TIMEOUT, **arguments: Any
    ) -> Any:
        try:
            return self._client.request(
                method,
                path,
                body=body,
                serialize=False,
                query_params=[],
                header_params={},
                _request_timeout=(CONNECT_TIMEOUT, timeout),
                **arguments,
            )
        except ApiException as error:
            raise self._refused(error, what) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreachable(error, what) from error

    def _json(
        self, method: str, path: str, what: str, body: Any = None, timeout: float = READ_TIMEOUT, **arguments: Any
    ) -> dict[str, Any]:
        try:
            result = json.loads(self._send(method, path, what, body, timeout, **arguments).data)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreachable(error, what) from error
        except ValueError as error:
            raise ClusterError(
                f"{self.name}: {self.server} does not answer like a Kubernetes API server: check the kubeconfig."
            ) from error
        return result if isinstance(result, dict) else {}

    def _unreachable(self, error: Exception, what: str) -> ClusterError:
        cause = getattr(error, "reason", None) or error
        text = re.sub(r"^<?.*?(object at 0x[0-9a-f]+>?|HTTPS?Connection(Pool)?\([^)]*\)): ?", "", str(cause))
        remedy = f"Check that the cluster is up and reachable from here, and the option {self._option}."
        if "CERTIFICATE_VERIFY_FAILED" in text:
            remedy = "Give the authority of its certificate (certificate-authority in the kubeconfig, option ca_cert)."
        return ClusterError(
            f"{self.name}: the API server {self.server} cannot be reached: {text}. It was asked to {what}. {remedy}"
        )

    def _refused(self, error: Any, what: str) -> ClusterError:
        status = int(error.status or 0)
        if not status:  # The library's form of a TLS error
            return self._unreachable(error, what)
        try:
            answer = json.loads(error.body)
            message, reason = str(answer.get("message") or ""), str(answer.get("reason") or "")
        except (TypeError, ValueError, AttributeError):
            answer, message, reason = {}, str(error.body or error.reason or ""), ""
        causes = (answer.get("details") or {}).get("causes") or []
        conflicts = [
            (
                manager.group(1)
                if (manager := re.search(r'conflict with "([^"]*)"', item.get("message", "")))
                else "?",
                str(item.get("field", "")),
            )
            for item in causes
            if item.get("reason") == "FieldManagerConflict"
        ]
        if status == 409 and conflicts:
            fields = "; ".join(f"{manager} owns {field}" for manager, field in conflicts)
            return ConflictError(f"{self.name}: cannot {what}: other managers own its fields: {fields}.", conflicts)
        if status == 401:
            return ClusterError(
                f"{self.name}: the API server {self.server} does not accept the credentials (401). Renew those of the"
                f" option {self._option} (token or client certificate, maybe expired).",
                status,
                reason or "Unauthorized",
            )
        if status == 403:
            return ClusterError(
                f"{self.name}: not allowed to {what}: {message} Grant the right to that user, or use other credentials"
                f" (option {self._option}).",
                status,
                reason or "Forbidden",
            )
        return ClusterError(
            f"{self.name}: cannot {what}: {message} ({status}{' ' + reason if reason else ''})", status, reason
        )

    # Discovery

    def api_groups(self) -> set[str]:
        """The names of the API groups that the server has, for example ``route.openshift.io``."""
        if self._groups is None:
            answer = self._json("GET", "/apis", "list its API groups")
            self._groups = {group["name"] for group in answer.get("groups", [])}
        return self._groups

    def serves(self, api_version: str, kind: str) -> bool:
        """Whether the server has this kind in this version."""
        return self._resource(api_version, kind) is not None

    def forget_discovery(self) -> None:
        """Ask anew which kinds there are; needed after a CustomResourceDefinition was made or deleted."""
        self._paths.clear()
        self._groups = None

    def namespaced(self, api_version: str, kind: str) -> bool | None:
        """Whether objects of the kind live in a namespace; None when the kind is not served."""
        resource = self._resource(api_version, kind)
        return None if resource is None else resource[1]

    def _resource(self, api_version: str, kind: str) -> tuple[str, bool] | None:
        """The plural and whether it is namespaced. One request per group and version, remembered for the task."""
        if api_version not in self._paths:
            try:
                answer = self._json("GET", _prefix(api_version), f"list the kinds of {api_version}")
            except ClusterError as error:
                if error.status != 404:
                    raise
                answer = {}
            self._paths[api_version] = {
                item["kind"]: (item["name"], bool(item["namespaced"]))
                for item in answer.get("resources", [])
                if "/" not in item["name"]
            }
        return self._paths[api_version].get(kind)

    def _path(self, api_version: str, kind: str, namespace: str | None, name: str | None = None) -> str | None:
        resource = self._resource(api_version, kind)
        if resource is None:
            return None
        plural, namespaced = resource
        middle = f"/namespaces/{quote(namespace)}" if namespaced and namespace else ""
        return f"{_prefix(api_version)}{middle}/{plural}" + (f"/{quote(name)}" if name else "")

    def _path_of(self, definition: dict[str, Any], named: bool = True) -> tuple[str, str]:
        """The path of an object that is to be written, and the words for it in a message."""
        api_version, kind, metadata = definition["apiVersion"], definition["kind"], definition["metadata"]
        namespace, name = metadata.get("namespace"), metadata.get("name")
        resource = self._resource(api_version, kind)
        if resource is None:  # A CustomResourceDefinition may have been made since
            self._paths.pop(api_version, None)
            resource = self._resource(api_version, kind)
        if resource is None:
            raise ClusterError(f"{self.name}: the server has no kind {kind} in {api_version}; install what defines it.")
        if resource[1] and not namespace:
            raise ClusterError(f"{self.name}: {kind} {name} needs a namespace.")
        path = self._path(api_version, kind, namespace, name if named else None) or ""
        return path, describe(kind, namespace if resource[1] else None, name)

    # Reading

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """The object; None when it does not exist or its kind is not served."""
        path = self._path(api_version, kind, namespace, name)
        if path is None:
            return None
        try:
            return self._json("GET", path, f"read {describe(kind, namespace, name)}")
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    def list(
        self,
        api_version: str,
        kind: str,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> list[dict[str, Any]]:
        """The objects, of all namespaces when ``namespace`` is None; [] when the kind is not served."""
        path = self._path(api_version, kind, namespace)
        if path is None:
            return []
        try:
            answer = self._json(
                "GET",
                path,
                f"list {describe(kind, namespace)}",
                label_selector=label_selector,
                field_selector=field_selector,
            )
        except ClusterError as error:
            if error.status == 404:  # The kind went away since it was discovered
                return []
            raise
        # The items of a list lack what all of them share.
        return [{"apiVersion": api_version, "kind": kind, **item} for item in answer.get("items") or []]

    def watch(
        self,
        api_version: str,
        kind: str,
        name: str | None,
        namespace: str | None,
        timeout: float,
        label_selector: str | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yield the object as it is and each time it changes, until ``timeout`` seconds have passed.

        Nothing is yielded while it does not exist or after it was deleted. With ``name`` None: all that the selector
        finds.
        """
        deadline = time.monotonic() + timeout
        path = self._path(api_version, kind, namespace)
        what = f"watch {describe(kind, namespace, name)}"
        while path is not None and (left := deadline - time.monotonic()) > 0:
            response = self._send(
                "GET",
                path,
                what,
                timeout=left + 5,
                field_selector=f"metadata.name={name}" if name else None,
                label_selector=label_selector,
                # Without a resourceVersion a watch begins with the object as it is.
                watch=True,
                timeout_seconds=max(1, int(left)),
            )
            try:
                for event in _events(response):
                    if event.get("type") in ("ADDED", "MODIFIED"):
                        yield event["object"]
                    if time.monotonic() >= deadline:
                        return
                    if event.get("type") == "ERROR":
                        break
            except (urllib3.exceptions.HTTPError, OSError):
                pass  # The connection broke: begin anew
            finally:
                response.close()
            time.sleep(min(0.2, max(0.0, deadline - time.monotonic())))

    # Writing

    def apply(
        self, definition: dict[str, Any], field_manager: str, force: bool = False, dry_run: bool = False
    ) -> dict[str, Any]:
        """Server-side apply; the object as the server then has it.

        Raises ConflictError when other managers own fields of it with other values and ``force`` is false.
        """
        path, words = self._path_of(definition)
        return self._json(
            "PATCH",
            path,
            f"apply {words}",
            definition,
            content_type="application/apply-patch+yaml",
            field_manager=field_manager,
            force_conflicts=force,
            **_dry(dry_run),
        )

    def create(self, definition: dict[str, Any], dry_run: bool = False) -> dict[str, Any]:
        """Create it; ClusterError with reason ``AlreadyExists`` when it exists."""
        path, words = self._path_of(definition, named=False)
        return self._json("POST", path, f"create {words}", definition, **_dry(dry_run))

    def replace(self, definition: dict[str, Any], dry_run: bool = False) -> dict[str, Any]:
        """Replace it; ClusterError with reason ``Conflict`` when its resourceVersion is not the newest."""
        path, words = self._path_of(definition)
        return self._json("PUT", path, f"replace {words}", definition, **_dry(dry_run))

    def patch_merge(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str | None,
        patch: dict[str, Any],
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """JSON merge patch (RFC 7386): a key with None goes away."""
        target = {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace}}
        path, words = self._path_of(target)
        return self._json(
            "PATCH", path, f"patch {words}", patch, content_type="application/merge-patch+json", **_dry(dry_run)
        )

    def delete(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str | None = None,
        dry_run: bool = False,
        propagation: str = "Background",
    ) -> bool:
        """Delete it; False when it was not there."""
        path = self._path(api_version, kind, namespace, name)
        if path is None:
            return False
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        try:
            self._json("DELETE", path, f"delete {describe(kind, namespace, name)}", options, **_dry(dry_run))
        except ClusterError as error:
            if error.status == 404:
                return False
            raise
        return True

    def token_request(
        self,
        service_account: str,
        namespace: str,
        audiences: Strings | None = None,
        expiration_seconds: int | None = None,
    ) -> dict[str, Any]:
        """The status of a TokenRequest: ``token`` and ``expirationTimestamp``. At least 600 seconds."""
        spec: dict[str, Any] = {}
        if audiences:
            spec["audiences"] = audiences
        if expiration_seconds:
            spec["expirationSeconds"] = expiration_seconds
        answer = self._json(
            "POST",
            f"/api/v1/namespaces/{quote(namespace)}/serviceaccounts/{quote(service_account)}/token",
            f"request a token of {describe('ServiceAccount', namespace, service_account)}",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
        )
        return dict(answer.get("status") or {})

    def can(self, verb: str, group: str, resource: str, namespace: str | None = None) -> bool:
        """Whether these credentials may do it (SelfSubjectAccessReview). ``resource``: plural[/subresource]."""
        plural, _slash, subresource = resource.partition("/")
        attributes = {"verb": verb, "group": group, "resource": plural, "namespace": namespace or ""}
        if subresource:
            attributes["subresource"] = subresource
        answer = self._json(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            "ask for its rights",
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes},
            },
        )
        return bool((answer.get("status") or {}).get("allowed"))

    def log(self, pod: str, namespace: str, container: str, lines: int = 1, previous: bool = False) -> str:
        """The last lines of a container's log; "" when there is none."""
        query = urlencode({"container": container, "tailLines": lines, "previous": str(previous).lower()})
        path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}/log?{query}"
        try:
            return str(
                self._send("GET", path, f"read the log of {namespace}/{pod}").data.decode("utf-8", "replace")
            ).strip()
        except ClusterError:
            return ""

    def exec(
        self,
        pod: str,
        namespace: str,
        container: str,
        command: Strings,
        stdin: str | None = None,
        timeout: float = 30,
    ) -> tuple[int, str, str]:
        """Run a command in a container; its return code, standard output and standard error.

        ``stdin`` is closed after the text where server and library speak v5 of the protocol (Kubernetes 1.30); for
        others the command must know by itself how much to read. Raises ClusterError after ``timeout`` seconds.
        """
        from kubernetes.stream import ws_client
        from websocket import WebSocketBadStatusException, WebSocketException

        what = f"run {command[0]} in the container {container} of {describe('Pod', namespace, pod)}"
        if self._impersonated:
            raise ClusterError(
                f"{self.name}: cannot {what} as another user: the Python client does not impersonate in exec. Give that"
                " user's own credentials instead of the options impersonate_user and impersonate_groups."
            )
        query = [("command", argument) for argument in command] + [
            ("container", container),
            ("stdin", str(stdin is not None).lower()),
            ("stdout", "true"),
            ("stderr", "true"),
        ]
        server = re.sub("^http", "ws", self.server)
        url = f"{server}/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}/exec?{urlencode(query)}"
        configuration = self._client.configuration
        token = configuration.auth_settings().get("BearerToken")
        headers = {"authorization": token["value"]} if token else {}
        try:
            stream = ws_client.WSClient(configuration, url, headers, capture_all=False)
        except WebSocketBadStatusException as error:
            body = getattr(error, "resp_body", None)
            raise self._refused(
                ApiException(status=error.status_code, reason=str(error)) if body is None else _answer(error), what
            ) from error
        except (WebSocketException, OSError) as error:
            raise self._unreachable(error, what) from error
        output, errors, deadline = [], [], time.monotonic() + timeout
        try:
            if stdin is not None:
                for start in range(0, len(stdin), 32768):
                    stream.write_stdin(stdin[start : start + 32768])
                if hasattr(stream, "close_channel"):
                    stream.close_channel(0)
            while stream.is_open() and time.monotonic() < deadline:
                stream.update(timeout=min(1.0, max(0.0, deadline - time.monotonic())))
                output.append(stream.read_channel(1))
                errors.append(stream.read_channel(2))
            if stream.is_open():
                raise ClusterError(f"{self.name}: cannot {what}: it did not end within {timeout:g} s.")
            output.append(stream.read_channel(1))
            errors.append(stream.read_channel(2))
            status = stream.read_channel(3)
        except (WebSocketException, OSError) as error:
            raise self._unreachable(error, what) from error
        finally:
            stream.close()
        return self._exit_code(status, what), "".join(output), "".join(errors)

    def _exit_code(self, status: str, what: str) -> int:
        """The return code in the status that ends an exec (channel 3, a JSON object)."""
        try:
            answer = json.loads(status)
        except ValueError:
            raise ClusterError(f"{self.name}: cannot {what}: the connection ended early.") from None
        if answer.get("status") == "Success":
            return 0
        for cause in (answer.get("details") or {}).get("causes") or []:
            if cause.get("reason") == "ExitCode":
                return int(cause["message"])
        raise ClusterError(f"{self.name}: cannot {what}: {answer.get('message', 'no reason given')}")


def describe(kind: str, namespace: str | None = None, name: str | None = None) -> str:
    """An object in a message: ``Deployment istio-system/istiod``."""
    return f"{kind} {namespace + '/' if namespace else ''}{name or ''}".rstrip(" /")


def _answer(error: Any) -> Any:
    """A refused websocket in the form of the library's other refusals."""
    refusal = ApiException(status=error.status_code, reason=str(error))
    body = error.resp_body
    refusal.body = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    return refusal


def _prefix(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _dry(dry_run: bool) -> dict[str, Any]:
    return {"dry_run": "All"} if dry_run else {}


def _events(response: Any) -> Iterator[dict[str, Any]]:
    """The events of a watch: one JSON object a line."""
    rest = b""
    for chunk in response.stream(65536, decode_content=True):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield json.loads(line)
