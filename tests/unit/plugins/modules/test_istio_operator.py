"""Tests of the module over a cluster in memory and an injected istioctl."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.meshfleet.istio.plugins.module_utils import _wait
from ansible_collections.meshfleet.istio.plugins.module_utils._kube import AUTH_OPTIONS
from ansible_collections.meshfleet.istio.plugins.modules import istio_operator

Object = dict[str, Any]
CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: %s}\n"
WEBHOOK = """---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: inject}
webhooks: [{name: w, clientConfig: {url: u}}]
"""
ISTIOD = """---
apiVersion: apps/v1
kind: Deployment
metadata: {name: istiod, namespace: istio-system, labels: {app: istiod}}
spec: {replicas: 0, selector: {matchLabels: {app: istiod}}, template: {metadata: {labels: {app: istiod}}}}
"""


class Ended(Exception):
    """The module ended; ``result`` is what it returned."""

    def __init__(self, failed: bool, result: Object) -> None:
        super().__init__(result.get("msg"))
        self.failed = failed
        self.result = result


class FakeModule:
    """What the module uses of AnsibleModule, with its defaults filled in."""

    def __init__(self, params: Object, check_mode: bool, diff: bool) -> None:
        spec = istio_operator.argument_spec()
        self.params = {**{name: option.get("default") for name, option in spec.items()}, **params}
        self.check_mode = check_mode
        self._diff = diff
        self.warnings: list[str] = []
        self.rendered = CONFIG_MAP % "a"
        self.stderr = ""
        self.rc = 0
        self.commands: list[list[str]] = []

    def run_command(self, argv: list[str], **_arguments: Any) -> tuple[int, str, str]:
        self.commands.append(argv)
        if argv[0] == "missing":
            raise FileNotFoundError
        if argv[1] == "version":
            return 0, json.dumps({"clientVersion": {"version": "1.29.1"}}), ""
        return self.rc, self.rendered, self.stderr

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def fail_json(self, **result: Any) -> None:
        raise Ended(True, result)

    def exit_json(self, **result: Any) -> None:
        raise Ended(False, result)


Run = Callable[..., Object]


@pytest.fixture
def run(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the module; ``fake`` sets attributes of the FakeModule, the rest are options."""

    def run(fake: Object | None = None, check: bool = False, diff: bool = False, **params: Any) -> Object:
        options = {"name": "hub", "spec": {"profile": "empty"}, **params}
        module = FakeModule(options, check, diff)
        for name, value in (fake or {}).items():
            setattr(module, name, value)
        monkeypatch.setattr(istio_operator, "AnsibleModule", lambda **_arguments: module)
        monkeypatch.setattr(istio_operator, "connect", lambda _module: cluster)
        with pytest.raises(Ended) as ended:
            istio_operator.main()
        return {**ended.value.result, "failed": ended.value.failed, "warnings": module.warnings, "ran": module.commands}

    return run


def counted(result: Object) -> list[str]:
    return [f"{entry['action']} {entry['kind']} {entry['name']}" for entry in result["plan"]]


def test_create_modify_and_delete_each_checked_and_repeated(run: Run, cluster: Any) -> None:
    def data() -> Any:
        found = cluster.get("", "ConfigMap", "istio", "istio-system")
        return found and found["data"]

    for state, text, before, after in (
        ("present", CONFIG_MAP % "a", None, {"mesh": "a"}),
        ("present", CONFIG_MAP % "b", {"mesh": "a"}, {"mesh": "b"}),
        ("absent", CONFIG_MAP % "b", {"mesh": "b"}, None),
    ):
        fake = {"rendered": text}
        assert run(fake, check=True, state=state)["changed"]
        assert data() == before
        assert run(fake, state=state)["changed"]
        assert data() == after
        assert not run(fake, check=True, state=state)["changed"]
        assert not run(fake, state=state)["changed"]
        assert data() == after


def test_result(run: Run) -> None:
    result = run(diff=True)
    assert result["istio_version"] == "1.29.1"
    assert counted(result) == ["created ConfigMap istio"]
    assert result["diff"][0]["after"] == "ConfigMap istio-system/istio\n"
    assert "diff" not in run()
    assert [argv[1] for argv in result["ran"]] == ["version", "manifest"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"name": "Hub"}, "name: 'Hub' cannot be the name"),
        ({"name": "a" * 64}, "name: "),
        ({"namespace": "a.b"}, "namespace: 'a.b' cannot be the name"),
        ({"wait_timeout": 0}, "wait_timeout: 0 is not"),
        ({"delete_custom_resources": True}, "set delete_crds to true too"),
        ({"istio_version": "1.30.0"}, "is istioctl 1.29.1, but istio_version asks for 1.30.0"),
        ({"istioctl_path": "missing"}, "not found at missing"),
        ({"spec": {"profile": "external"}}, "profile external"),
    ],
)
def test_bad_input_fails_before_a_cluster_is_asked(
    run: Run, monkeypatch: pytest.MonkeyPatch, cluster: Any, params: Object, message: str
) -> None:
    monkeypatch.setattr(cluster, "list", None)
    result = run(**params)
    assert result["failed"]
    assert message in result["msg"]
    assert not result["changed"]
    assert cluster.writes == []


def test_kubernetes_that_is_too_old(run: Run, cluster: Any) -> None:
    cluster.version, cluster.git_version = (1, 29), "v1.29.9"
    result = run()
    assert "fake: Kubernetes v1.29.9 is too old for Istio 1.29.1, which needs 1.30" in result["msg"]
    assert cluster.writes == []


def test_operator_that_istioctl_refuses(run: Run, cluster: Any) -> None:
    result = run({"rc": 1, "stderr": 'Error: json: unknown field "componentz"'})
    assert 'unknown field "componentz"' in result["msg"]
    assert cluster.writes == []


def test_warnings_of_istioctl_reach_the_user(run: Run) -> None:
    assert run({"stderr": "WARNING: values.x is deprecated"})["warnings"] == ["istioctl: values.x is deprecated"]


def test_absent_works_without_istioctl(run: Run, cluster: Any) -> None:
    run()
    result = run(state="absent", istioctl_path="missing")
    assert counted(result) == ["pruned ConfigMap istio"]
    assert "Only what carries this operator's label is deleted" in result["warnings"][0]
    assert cluster.get("", "ConfigMap", "istio", "istio-system") is None
    result = run(state="absent", istioctl_path="missing", spec=None)
    assert (result["changed"], result["plan"], result["warnings"], result["ran"]) == (False, [], [], [])


def test_failure_while_waiting_tells_what_was_done(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def ready(*_arguments: Any, **_options: Any) -> None:
        raise _wait.NotReadyError("not ready: image")

    monkeypatch.setattr(_wait.Waiter, "ready", ready)
    result = run()
    assert (result["failed"], result["changed"], result["msg"]) == (True, True, "not ready: image")
    assert counted(result) == ["created ConfigMap istio"]
    assert not run(wait=False)["failed"]


@pytest.mark.parametrize("control_plane", [True, False])
def test_only_a_control_plane_is_expected_to_fill_its_webhooks(
    run: Run, monkeypatch: pytest.MonkeyPatch, control_plane: bool
) -> None:
    asked: list[Object] = []
    monkeypatch.setattr(_wait.Waiter, "ready", lambda _self, _items, **options: asked.append(options))
    fake = {"rendered": CONFIG_MAP % "a" + WEBHOOK + (ISTIOD if control_plane else "")}
    run(fake)
    run(fake)
    assert asked == [
        {"settled": False, "ca_bundle": control_plane},
        {"settled": True, "ca_bundle": control_plane},
    ]


def test_documentation_says_what_the_argument_spec_does() -> None:
    documented = yaml.safe_load(istio_operator.DOCUMENTATION)["options"]
    spec = {name: option for name, option in istio_operator.argument_spec().items() if name not in AUTH_OPTIONS}
    assert set(documented) == set(spec)
    for name, option in spec.items():
        for field in ("type", "default", "choices", "required"):
            assert documented[name].get(field) == option.get(field), (name, field)


def test_module_is_in_the_action_group() -> None:
    runtime = yaml.safe_load((Path(__file__).parents[4] / "meta" / "runtime.yml").read_text())
    assert "istio_operator" in runtime["action_groups"]["mesh"]
