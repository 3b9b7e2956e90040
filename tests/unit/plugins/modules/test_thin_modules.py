"""Tests of the modules' own parts: options, what they return, how errors end."""

from __future__ import annotations

import io
import json
from email.message import Message
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError

import pytest
from ansible.module_utils import basic
from ansible_collections.meshfleet.istio.plugins.module_utils._errors import MeshError
from ansible_collections.meshfleet.istio.plugins.module_utils._istiod import ClosedError, Istiod, IstiodError
from ansible_collections.meshfleet.istio.plugins.module_utils._kube import ClusterError
from ansible_collections.meshfleet.istio.plugins.module_utils._remote_secret import RemoteSecret
from ansible_collections.meshfleet.istio.plugins.modules import (
    apiserver_hosts,
    http_probe_info,
    istio_mesh_info,
    istio_remote_secret,
)

# Not list[str]: in Node, list is a method.
Command = list[str]

CONTEXTS = {"kubeconfig": "/kubeconfig", "context": "m1"}


class Ended(Exception):
    """The module has ended with this result."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__(str(result))
        self.result = result


class Run:
    """Runs a module's main() without Ansible around it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.warnings: list[str] = []
        self.connections: list[Any] = []

    def __call__(self, module: Any, check_mode: bool = False, **options: Any) -> dict[str, Any]:
        def exit_json(_module: Any, **result: Any) -> None:
            raise Ended(result)

        def fail_json(_module: Any, **result: Any) -> None:
            raise Ended({"failed": True, **result})

        arguments = {"ANSIBLE_MODULE_ARGS": {**options, "_ansible_check_mode": check_mode}}
        self.monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps(arguments).encode())
        # Needed from ansible-core 2.19 on, unknown before
        self.monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)
        self.monkeypatch.setattr(basic.AnsibleModule, "exit_json", exit_json)
        self.monkeypatch.setattr(basic.AnsibleModule, "fail_json", fail_json)
        self.monkeypatch.setattr(basic.AnsibleModule, "warn", lambda _module, text: self.warnings.append(text))
        with pytest.raises(Ended) as ended:
            module.main()
        return ended.value.result

    def connect(self, module: Any, *clusters: Any) -> None:
        """What connect() gives, one after the other; an exception is raised."""
        left = list(clusters)

        def connect(_module: Any, auth: Any = None, option: str = "context") -> Any:
            self.connections.append((auth and auth["kubeconfig"], auth and auth["context"], option))
            cluster = left.pop(0)
            if isinstance(cluster, Exception):
                raise cluster
            return cluster

        self.monkeypatch.setattr(module, "connect", connect)

    def replace(self, owner: Any, name: str, outcome: Any) -> list[Any]:
        """Let a method return or raise ``outcome``; its arguments, call by call."""
        calls: list[Any] = []

        def method(_self: Any, *arguments: Any) -> Any:
            calls.append(arguments)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        self.monkeypatch.setattr(owner, name, method)
        return calls


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(monkeypatch)


class Named:
    def __init__(self, name: str) -> None:
        self.name = name


def secret_options(**options: Any) -> dict[str, Any]:
    return {**CONTEXTS, "hub": {"context": "hub"}, "cluster_name": "m1", **options}


def outcome(changed: bool, updated: bool = False) -> dict[str, Any]:
    return {"changed": changed, "updated": updated, "server": "https://m1:6443", "diff": []}


def test_remote_secret_waits(run: Run) -> None:
    run.connect(istio_remote_secret, Named("hub"), Named("m1"))
    run.replace(RemoteSecret, "present", outcome(True))
    run.replace(Istiod, "replicas", ["a"])
    waits = run.replace(Istiod, "wait_synced", [{"replica": "a", "sync_status": "synced"}])
    result = run(istio_remote_secret, **secret_options(wait_timeout=7))
    assert result == {
        "changed": True,
        "cluster_name": "m1",
        "secret": "istio-system/istio-remote-secret-m1",
        "server": "https://m1:6443",
        "sync": [{"replica": "a", "sync_status": "synced"}],
        "restart_required": False,
        "diff": [],
    }
    assert waits == [("m1", 7)]
    # The hub has no kubeconfig of its own: the module's is used.
    assert run.connections == [("/kubeconfig", "hub", "hub.context"), (None, None, "context")]
    assert run.warnings == []


def test_remote_secret_hub_with_a_kubeconfig_of_its_own(run: Run) -> None:
    run.connect(istio_remote_secret, MeshError("enough"))
    result = run(istio_remote_secret, **secret_options(hub={"kubeconfig": "/hub", "context": "h"}))
    assert (result["failed"], result["msg"]) == (True, "enough")
    assert run.connections == [("/hub", "h", "hub.context")]


def test_remote_secret_without_istiod(run: Run) -> None:
    run.connect(istio_remote_secret, Named("hub"), Named("m1"))
    run.replace(RemoteSecret, "present", outcome(True))
    run.replace(Istiod, "replicas", [])
    result = run(istio_remote_secret, **secret_options())
    assert (result["sync"], result["restart_required"]) == ([], False)
    assert "No istiod runs in namespace istio-system of the hub hub" in run.warnings[0]


def test_remote_secret_closed(run: Run) -> None:
    run.connect(istio_remote_secret, Named("hub"), Named("m1"))
    run.replace(RemoteSecret, "present", outcome(True, updated=True))
    run.replace(Istiod, "replicas", ["a"])
    run.replace(Istiod, "wait_synced", ClosedError("closed"))
    others = {"replica": "a", "id": "m2", "secret_name": "", "sync_status": "synced"}
    run.replace(Istiod, "remote_clusters", [others, {**others, "id": "m1", "sync_status": "closed"}])
    result = run(istio_remote_secret, **secret_options())
    assert result["restart_required"]
    assert result["sync"] == [{"replica": "a", "sync_status": "closed"}]
    assert run.warnings == ["closed"]


def test_remote_secret_never_synced(run: Run) -> None:
    run.connect(istio_remote_secret, Named("hub"), Named("m1"))
    run.replace(RemoteSecret, "present", outcome(False))
    run.replace(Istiod, "replicas", ["a"])
    run.replace(Istiod, "wait_synced", IstiodError("a: timeout"))
    assert run(istio_remote_secret, **secret_options())["msg"] == "a: timeout"


@pytest.mark.parametrize(("wait", "check_mode"), [(False, False), (True, True)])
def test_remote_secret_updated_without_wait(run: Run, wait: bool, check_mode: bool) -> None:
    run.connect(istio_remote_secret, Named("hub"), Named("m1"))
    run.replace(RemoteSecret, "present", outcome(True, updated=True))
    assert run(istio_remote_secret, check_mode, **secret_options(wait=wait))["sync"] == []
    assert "is replaced in place" in run.warnings[0]


def test_remote_secret_bad_name_before_any_connection(run: Run) -> None:
    run.connect(istio_remote_secret)
    assert "DNS-1123" in run(istio_remote_secret, **secret_options(cluster_name="A"))["msg"]
    assert run.connections == []


@pytest.mark.parametrize(
    ("state", "managed_unreachable", "fails"),
    [("absent", "fail", True), ("absent", "ignore", False), ("present", "ignore", True)],
)
def test_remote_secret_managed_unreachable(run: Run, state: str, managed_unreachable: str, fails: bool) -> None:
    run.connect(istio_remote_secret, Named("hub"), ClusterError("away"))
    absents = run.replace(RemoteSecret, "absent", outcome(True))
    options = secret_options(state=state, managed_unreachable=managed_unreachable)
    result = run(istio_remote_secret, **options)
    assert result.get("failed", False) is fails
    assert absents == ([] if fails else [(None,)])
    assert "server" not in result


class Node:
    """One kube-apiserver pod."""

    name = "m1"

    def __init__(self) -> None:
        self.file = "127.0.0.1 localhost\n1.1.1.1 a.b\n"

    def list(self, *_arguments: Any, **_selectors: Any) -> list[dict[str, Any]]:
        return [{"metadata": {"name": "api"}, "status": {"phase": "Running"}}]

    def exec(self, _pod: str, _namespace: str, _container: str, command: Command) -> tuple[int, str, str]:
        if command[0] == "sh":
            self.file = command[4]
            return 0, "", ""
        return 0, self.file, ""


def test_apiserver_hosts(run: Run) -> None:
    node = Node()
    before = node.file
    run.connect(apiserver_hosts, *[node] * 4)
    options: dict[str, Any] = {"hosts": {"a.b": "2.2.2.2"}, "marker": "m"}
    planned = run(apiserver_hosts, check_mode=True, **options)
    assert node.file == before
    result = run(apiserver_hosts, **options)
    assert result == planned
    assert result["pods"] == [{"name": "api", "changed": True, "adopted": ["1.1.1.1 a.b"]}]
    assert (result["diff"][0]["before"], result["diff"][0]["after"]) == (before, node.file)
    again = run(apiserver_hosts, **options)
    assert (again["changed"], again["diff"], again["pods"][0]["adopted"]) == (False, [], [])
    assert run(apiserver_hosts, state="absent", marker="m")["changed"]
    assert node.file == "127.0.0.1 localhost\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "all of the following are missing: hosts"),
        ({"hosts": {}}, "give at least one name"),
        ({"hosts": {"a": "b"}}, "not an IP address"),
        ({"hosts": {"a": "1.1.1.1"}, "marker": ""}, "marker"),
    ],
)
def test_apiserver_hosts_bad_input(run: Run, options: dict[str, Any], message: str) -> None:
    run.connect(apiserver_hosts)
    assert message in run(apiserver_hosts, **options)["msg"]
    assert run.connections == []


def test_mesh_info_gathers_what_was_asked(run: Run) -> None:
    run.connect(istio_mesh_info, Named("hub"))
    run.replace(Istiod, "proxies", [{"name": "a", "synced": False}, {"name": "b", "synced": True}])
    result = run(istio_mesh_info, gather=["proxies"], query="proxies[?!synced].name")
    assert result == {
        "changed": False,
        "proxies": [{"name": "a", "synced": False}, {"name": "b", "synced": True}],
        "result": ["a"],
    }


def test_mesh_info_of_istioctl_asks_no_cluster(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    version = json.dumps({"clientVersion": {"version": "1.21.0"}})
    monkeypatch.setattr(basic.AnsibleModule, "run_command", lambda *_args, **_kwargs: (0, version, ""))
    run.connect(istio_mesh_info)
    result = run(istio_mesh_info, gather=["istioctl"], istioctl_path="/opt/istioctl")
    assert result["istioctl"] == {"version": "1.21.0", "managed_profile": "external", "path": "/opt/istioctl"}
    assert run.connections == []


def test_mesh_info_defaults(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.connect(istio_mesh_info, Named("hub"))
    for name in ("remote_clusters", "proxies"):
        run.replace(Istiod, name, [name])
    monkeypatch.setattr(istio_mesh_info, "webhooks", lambda _cluster: ["webhooks"])
    monkeypatch.setattr(istio_mesh_info, "cluster_facts", lambda _cluster, _namespace: pytest.fail("not asked for"))
    monkeypatch.setattr(istio_mesh_info, "credentials_on", lambda _cluster, namespace: [namespace])
    assert run(istio_mesh_info) == {
        "changed": False,
        "remote_clusters": ["remote_clusters"],
        "proxies": ["proxies"],
        "webhooks": ["webhooks"],
        "credentials": ["istio-system"],
    }


@pytest.mark.parametrize(
    ("query", "message", "connections"),
    [("a[[", "is not a JMESPath expression", 0), ("length(nothing)", "does not fit the data", 1)],
)
def test_mesh_info_bad_query(run: Run, query: str, message: str, connections: int) -> None:
    run.connect(istio_mesh_info, Named("hub"))
    run.replace(Istiod, "proxies", [])
    assert message in run(istio_mesh_info, gather=["proxies"], query=query)["msg"]
    assert len(run.connections) == connections


def test_mesh_info_query_without_jmespath(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(istio_mesh_info, "JMESPATH_ERROR", "no such library")
    assert "jmespath" in run(istio_mesh_info, query="proxies")["msg"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "ftp://a"}, "url: 'ftp://a' is not"),
        ({"url": "http://"}, "is not an http or https URL"),
        ({"expect": ["v1"]}, "expect: needs the option pattern"),
        ({"only": True}, "only: needs the option expect"),
        ({"pattern": "("}, "pattern: '('"),
        ({"timeout": 0}, "timeout: 0 is less than 1"),
        ({"max_requests": 5}, "max_requests: 5 is less than min_requests, 10"),
    ],
)
def test_probe_bad_input(run: Run, options: dict[str, Any], message: str) -> None:
    assert message in run(http_probe_info, **{"url": "http://a", **options})["msg"]


class Response(io.BytesIO):
    code = 200


def test_probe(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []

    def open_url(url: str, **options: Any) -> Response:
        sent.append((url, options["headers"], options["timeout"]))
        return Response(b"<v1>")

    monkeypatch.setattr(http_probe_info, "open_url", open_url)
    result = run(http_probe_info, url="http://a/b", headers={"Host": "c", "X": 1}, pattern="<(.*)>", expect=["v1"])
    assert (result["changed"], result["requests"], result["matches"]) == (False, 1, {"v1": 1})
    assert sent == [("http://a/b", {"Host": "c", "X": "1"}, 5)]


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (503, "status 503: upstream"),
        (HTTPException("odd"), "no answer: no HTTP answer"),
        (ConnectionRefusedError("refused"), "no answer: refused"),
    ],
)
def test_probe_fails_with_what_it_saw(
    run: Run, monkeypatch: pytest.MonkeyPatch, answer: Exception | int, seen: str
) -> None:
    def open_url(_url: str, **_options: Any) -> Response:
        if isinstance(answer, int):
            raise HTTPError("http://a", answer, "no", Message(), io.BytesIO(b"upstream"))
        raise answer

    monkeypatch.setattr(http_probe_info, "open_url", open_url)
    result = run(http_probe_info, url="http://a", min_requests=1, wait_timeout=1)
    assert result["failed"]
    assert result["msg"].startswith("http://a: ")
    assert seen in result["first_error"]
