"""Tests of Cluster against a small HTTP server that answers like an API server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from ansible_collections.meshfleet.istio.plugins.module_utils import _kube
from ansible_collections.meshfleet.istio.plugins.module_utils._kube import Cluster, ClusterError, ConflictError

Object = dict[str, Any]
TOKEN = "a-token-of-this-test"
RESOURCES = {
    "/api/v1": [("configmaps", "ConfigMap", True), ("namespaces", "Namespace", False)],
    "/apis/apps/v1": [("deployments", "Deployment", True), ("deployments/scale", "Scale", True)],
}


def status(code: int, reason: str, message: str, **details: Any) -> tuple[int, Object]:
    return code, {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}


class Server(ThreadingHTTPServer):
    """Remembers requests; ``answers`` overrides what it answers to a method and path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str, dict[str, list[str]], Object, Any]] = []
        self.answers: dict[tuple[str, str], tuple[int, Any]] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"

    def last(self) -> tuple[str, str, dict[str, list[str]], Object, Any]:
        return self.requests[-1]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def answer(self) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        headers = {name.lower(): self.headers.get_all(name) for name in self.headers}
        self.server.requests.append((self.command, url.path, parse_qs(url.query), headers, body))
        code, content = self.server.answers.get((self.command, url.path)) or self.usual(url.path)
        if self.headers.get("Authorization") not in (f"Bearer {TOKEN}", None):
            code, content = status(401, "Unauthorized", "Unauthorized")
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def usual(self, path: str) -> tuple[int, Any]:
        if path == "/version":
            return 200, {"major": "1", "minor": "35+", "gitVersion": "v1.35.4"}
        if path == "/apis":
            return 200, {"groups": [{"name": "apps"}, {"name": "route.openshift.io"}]}
        if path in RESOURCES:
            names = ("name", "kind", "namespaced")
            return 200, {"resources": [dict(zip(names, row)) for row in RESOURCES[path]]}
        return status(404, "NotFound", "the server could not find the requested resource")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

    def log_message(self, *_arguments: Any) -> None:
        """Silent."""


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBECONFIG", "K8S_AUTH_KUBECONFIG", "K8S_AUTH_CONTEXT", "K8S_AUTH_HOST", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def module(**params: Any) -> Any:
    return SimpleNamespace(params=params, no_log_values=set())


def kubeconfig(path: Path, url: str, current: str | None = None, token: str = TOKEN) -> str:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": "c", "user": "u"}} for name in ("hub", "spare")],
    }
    if current:
        document["current-context"] = current
    path.write_text(yaml.safe_dump(document))
    return str(path)


@pytest.fixture
def cluster(server: Server) -> Cluster:
    return _kube.connect(module(host=server.url, api_key=TOKEN))


def test_connect_by_kubeconfig_and_context(server: Server, tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", server.url, "spare")
    cluster = _kube.connect(module(kubeconfig=path, context="hub"))
    assert (cluster.name, cluster.server, cluster.version, cluster.git_version) == (
        "hub",
        server.url,
        (1, 35),
        "v1.35.4",
    )
    assert server.last()[3]["authorization"] == [f"Bearer {TOKEN}"]
    assert _kube.connect(module(kubeconfig=path)).name == "spare"
    assert cluster.ca_data is None


def test_connect_takes_the_environment_of_kubernetes_core(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("K8S_AUTH_KUBECONFIG", kubeconfig(tmp_path / "config", server.url))
    monkeypatch.setenv("K8S_AUTH_CONTEXT", "spare")
    monkeypatch.setenv("K8S_AUTH_VERIFY_SSL", "no")
    monkeypatch.setenv("K8S_AUTH_IMPERSONATE_GROUPS", "a,b")
    assert _kube.connect(module()).name == "spare"
    assert server.last()[3]["impersonate-group"] == ["a", "b"]
    assert _kube.connect(module(context="hub")).name == "hub"


def test_connect_by_dictionary_hides_its_credentials(server: Server, tmp_path: Path) -> None:
    kubeconfig(tmp_path / "config", server.url)
    document = yaml.safe_load((tmp_path / "config").read_text())
    asked = module()
    hub = {"kubeconfig": document, "context": "hub", "impersonate_user": "someone"}
    assert _kube.connect(asked, hub, "hub.context").name == "hub"
    assert asked.no_log_values == {TOKEN}
    assert server.last()[3]["impersonate-user"] == ["someone"]


def test_connect_by_several_files(server: Server, tmp_path: Path) -> None:
    paths = f"{tmp_path / 'missing'}:{kubeconfig(tmp_path / 'config', server.url)}"
    assert _kube.connect(module(kubeconfig=paths, context="hub")).name == "hub"


def test_two_clusters_share_no_credentials(server: Server, tmp_path: Path) -> None:
    _kube.connect(module(kubeconfig=kubeconfig(tmp_path / "config", server.url), context="hub"))
    with pytest.raises(ClusterError, match=r"does not accept the credentials \(401\).*option hub.context"):
        _kube.connect(module(), {"host": server.url, "api_key": "another"}, "hub.context")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"kubeconfig .*config does not exist.*option kubeconfig"),
        ("a: [", r"is not valid YAML"),
        ("", r"is empty or not a kubeconfig"),
        ("[]", r"is empty or not a kubeconfig"),
        ("{}", r"no context nowhere in the kubeconfig .*it has no contexts.*option context"),
        (
            "contexts: [{name: b}, {name: a}]",
            r"no context nowhere in the kubeconfig .*it has a, b\. Set the option",
        ),
        ("contexts: [{name: nowhere}]", r"context nowhere of the kubeconfig .*\(option context\) cannot be used"),
    ],
)
def test_kubeconfig_that_cannot_be_used(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "config").write_text(text)
    with pytest.raises(ClusterError, match=message):
        _kube.connect(module(kubeconfig=str(tmp_path / "config"), context="nowhere"))


def test_no_current_context(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"no current context in .*it has hub, spare"):
        _kube.connect(module(kubeconfig=kubeconfig(tmp_path / "config", server.url)))


def test_file_of_an_option_is_missing(server: Server) -> None:
    with pytest.raises(ClusterError, match=r"/nope of the option ca_cert is missing"):
        _kube.connect(module(host=server.url, api_key=TOKEN, ca_cert="/nope"))


def test_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kube, "IMPORT_ERROR", "Traceback")
    with pytest.raises(ClusterError, match=r"kubernetes"):
        _kube.connect(module())


def test_server_that_is_away(server: Server) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(ClusterError) as raised:
        _kube.connect(module(host=server.url, api_key=TOKEN), option="kube_context")
    assert f"the API server {server.url} cannot be reached" in str(raised.value)
    assert "Connection refused" in str(raised.value)
    assert "option kube_context" in str(raised.value)
    assert "object at 0x" not in str(raised.value)
    assert raised.value.status is None


def test_server_that_is_something_else(server: Server) -> None:
    server.answers["GET", "/version"] = (200, b"<html>")
    with pytest.raises(ClusterError, match=r"does not answer like a Kubernetes API server"):
        _kube.connect(module(host=server.url, api_key=TOKEN))


def test_forbidden_names_the_right(cluster: Cluster, server: Server) -> None:
    server.answers["GET", "/api/v1/configmaps"] = status(403, "Forbidden", "configmaps is forbidden: no.")
    with pytest.raises(ClusterError, match=r"not allowed to list ConfigMap: configmaps is forbidden.*Grant") as raised:
        cluster.list("v1", "ConfigMap")
    assert (raised.value.status, raised.value.reason) == (403, "Forbidden")


def test_discovery_is_asked_once_until_forgotten(cluster: Cluster, server: Server) -> None:
    assert cluster.serves("apps/v1", "Deployment")
    assert not cluster.serves("apps/v1", "Scale")
    assert not cluster.serves("networking.istio.io/v1", "Gateway")
    assert (cluster.namespaced("v1", "Namespace"), cluster.namespaced("v1", "ConfigMap")) == (False, True)
    assert cluster.namespaced("v1", "Nothing") is None
    assert "route.openshift.io" in cluster.api_groups()
    count = len(server.requests)
    cluster.serves("apps/v1", "Deployment")
    cluster.api_groups()
    assert len(server.requests) == count
    cluster.forget_discovery()
    cluster.serves("apps/v1", "Deployment")
    assert len(server.requests) == count + 1


def test_reading(cluster: Cluster, server: Server) -> None:
    assert cluster.get("v1", "ConfigMap", "istio", "istio-system") is None
    assert server.last()[1] == "/api/v1/namespaces/istio-system/configmaps/istio"
    assert cluster.get("x/v1", "Nothing", "a") is None
    assert cluster.list("x/v1", "Nothing") == []
    assert cluster.list("v1", "ConfigMap", "gone") == []
    server.answers["GET", "/api/v1/configmaps"] = (200, {"items": [{"metadata": {"name": "a"}}]})
    found = cluster.list("v1", "ConfigMap", label_selector="a=b", field_selector="metadata.name=a")
    assert found == [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}]
    assert server.last()[2] == {"labelSelector": ["a=b"], "fieldSelector": ["metadata.name=a"]}
    server.answers["GET", "/api/v1/configmaps"] = status(500, "InternalError", "etcd is away")
    with pytest.raises(ClusterError, match=r"cannot list ConfigMap: etcd is away \(500 InternalError\)"):
        cluster.list("v1", "ConfigMap")


CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "n"}}
PATH = "/api/v1/namespaces/n/configmaps/a"


def test_apply(cluster: Cluster, server: Server) -> None:
    server.answers["PATCH", PATH] = (200, CONFIG)
    assert cluster.apply(CONFIG, "meshfleet.istio/n.a", dry_run=True) == CONFIG
    _method, _path, query, headers, body = server.last()
    assert query == {"fieldManager": ["meshfleet.istio/n.a"], "force": ["false"], "dryRun": ["All"]}
    assert headers["content-type"] == ["application/apply-patch+yaml"]
    assert body == CONFIG
    cluster.apply(CONFIG, "m", force=True)
    assert server.last()[2] == {"fieldManager": ["m"], "force": ["true"]}


def test_apply_meets_other_managers(cluster: Cluster, server: Server) -> None:
    causes = [
        {"reason": "FieldManagerConflict", "message": 'conflict with "argocd"', "field": ".data.a"},
        {"reason": "FieldManagerConflict", "message": 'conflict with "kubectl-edit" using v1', "field": ".data.b"},
    ]
    server.answers["PATCH", PATH] = status(409, "Conflict", "Apply failed with 2 conflicts", causes=causes)
    with pytest.raises(ConflictError, match=r"argocd owns .data.a; kubectl-edit owns .data.b") as raised:
        cluster.apply(CONFIG, "m")
    assert raised.value.conflicts == [("argocd", ".data.a"), ("kubectl-edit", ".data.b")]
    server.answers["PATCH", PATH] = status(409, "Conflict", "the object has been modified")
    with pytest.raises(ClusterError, match=r"the object has been modified \(409 Conflict\)") as plain:
        cluster.apply(CONFIG, "m")
    assert not isinstance(plain.value, ConflictError)


def test_writing_what_the_server_does_not_know(cluster: Cluster, server: Server) -> None:
    gateway = {"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": "g", "namespace": "n"}}
    with pytest.raises(ClusterError, match=r"no kind Gateway in networking.istio.io/v1"):
        cluster.apply(gateway, "m")
    server.answers["GET", "/apis/networking.istio.io/v1"] = (
        200,
        {"resources": [{"name": "gateways", "kind": "Gateway", "namespaced": True}]},
    )
    server.answers["PATCH", "/apis/networking.istio.io/v1/namespaces/n/gateways/g"] = (200, gateway)
    assert cluster.apply(gateway, "m") == gateway
    with pytest.raises(ClusterError, match=r"ConfigMap a needs a namespace"):
        cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}, "m")


def test_other_writes(cluster: Cluster, server: Server) -> None:
    server.answers["POST", "/api/v1/namespaces/n/configmaps"] = (201, CONFIG)
    assert cluster.create(CONFIG, dry_run=True) == CONFIG
    assert server.last()[2] == {"dryRun": ["All"]}
    server.answers["PUT", PATH] = (200, CONFIG)
    assert cluster.replace(CONFIG) == CONFIG
    server.answers["PATCH", PATH] = (200, CONFIG)
    assert cluster.patch_merge("v1", "ConfigMap", "a", "n", {"data": {"x": None}}) == CONFIG
    assert server.last()[3]["content-type"] == ["application/merge-patch+json"]
    assert server.last()[4] == {"data": {"x": None}}
    server.answers["DELETE", PATH] = (200, {})
    assert cluster.delete("v1", "ConfigMap", "a", "n", propagation="Foreground")
    assert server.last()[4]["propagationPolicy"] == "Foreground"
    assert not cluster.delete("v1", "ConfigMap", "b", "n")
    assert not cluster.delete("x/v1", "Nothing", "b", "n")
    server.answers["DELETE", PATH] = status(403, "Forbidden", "no")
    with pytest.raises(ClusterError, match=r"not allowed to delete ConfigMap n/a"):
        cluster.delete("v1", "ConfigMap", "a", "n")


def test_token_and_rights(cluster: Cluster, server: Server) -> None:
    token = {"token": "t", "expirationTimestamp": "2026-11-23T12:00:00Z"}
    server.answers["POST", "/api/v1/namespaces/n/serviceaccounts/sa/token"] = (201, {"status": token})
    assert cluster.token_request("sa", "n", ["istio-ca"], 600) == token
    assert server.last()[4]["spec"] == {"audiences": ["istio-ca"], "expirationSeconds": 600}
    cluster.token_request("sa", "n")
    assert server.last()[4]["spec"] == {}
    review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    server.answers["POST", review] = (201, {"status": {"allowed": True}})
    assert cluster.can("create", "", "pods/exec", "n")
    assert server.last()[4]["spec"]["resourceAttributes"] == {
        "verb": "create",
        "group": "",
        "resource": "pods",
        "subresource": "exec",
        "namespace": "n",
    }
    server.answers["POST", review] = (201, {"status": {"allowed": False}})
    assert not cluster.can("create", "", "pods")


def test_watch_begins_anew_after_the_stream_ends(cluster: Cluster, server: Server) -> None:
    first = {"type": "ADDED", "object": {"metadata": {"resourceVersion": "1"}}}
    expired = {"type": "ERROR", "object": {"code": 410}}
    lines = "\n".join(json.dumps(event) for event in ({"type": "BOOKMARK", "object": {}}, first, expired)) + "\n"
    server.answers["GET", "/api/v1/namespaces/n/configmaps"] = (200, lines.encode())
    found = []
    for item in cluster.watch("v1", "ConfigMap", "a", "n", 5):
        found.append(item["metadata"]["resourceVersion"])
        if len(found) == 2:
            break
    assert found == ["1", "1"]
    assert server.last()[2]["fieldSelector"] == ["metadata.name=a"]
    assert server.last()[2]["watch"] == ["true"]
    assert list(cluster.watch("x/v1", "Nothing", "a", "n", 1)) == []


def test_watch_ends_in_time(cluster: Cluster, server: Server) -> None:
    server.answers["GET", "/api/v1/namespaces/n/configmaps"] = (200, b"")
    assert list(cluster.watch("v1", "ConfigMap", None, "n", 0.3, "a=b")) == []
    assert server.last()[2]["labelSelector"] == ["a=b"]


def test_log(cluster: Cluster, server: Server) -> None:
    assert cluster.log("p", "n", "c") == ""
    server.answers["GET", "/api/v1/namespaces/n/pods/p/log"] = (200, b"last line\n")
    assert cluster.log("p", "n", "c", previous=True) == "last line"
    assert server.last()[2] == {"container": ["c"], "tailLines": ["1"], "previous": ["true"]}


def test_exec_as_another_user_is_refused(server: Server) -> None:
    cluster = _kube.connect(module(host=server.url, api_key=TOKEN, impersonate_user="someone"))
    with pytest.raises(ClusterError, match=r"as another user.*impersonate_user"):
        cluster.exec("p", "n", "c", ["ls"])


def test_exec_that_is_refused(cluster: Cluster, server: Server) -> None:
    path = "/api/v1/namespaces/n/pods/p/exec"
    server.answers["GET", path] = status(404, "NotFound", 'pods "p" not found')
    with pytest.raises(ClusterError, match=r'cannot run ls in the container c of Pod n/p: pods "p"') as raised:
        cluster.exec("p", "n", "c", ["ls", "-l"])
    assert raised.value.status == 404
    assert server.last()[2]["command"] == ["ls", "-l"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"status": "Success"}, 0),
        ({"status": "Failure", "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}}, 3),
    ],
)
def test_exit_code(cluster: Cluster, answer: Object, expected: int) -> None:
    assert cluster._exit_code(json.dumps(answer), "run ls") == expected


@pytest.mark.parametrize(("answer", "message"), [("", "ended early"), ('{"message": "no such container"}', "no such")])
def test_exit_code_of_what_never_ran(cluster: Cluster, answer: str, message: str) -> None:
    with pytest.raises(ClusterError, match=message):
        cluster._exit_code(answer, "run ls")
