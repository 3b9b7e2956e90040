"""Tests of Istioctl over an injected run_command."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.meshfleet.istio.plugins.module_utils._istioctl import Istioctl, IstioctlError


class Command:
    """An istioctl: answers ``version``, and to anything else what it was told to."""

    def __init__(self, version: str = "1.29.1", rc: int = 0, stdout: str = "", stderr: str = "") -> None:
        self.answer = rc, stdout, stderr
        self.version = version
        self.calls: list[tuple[list[str], str | None]] = []

    def __call__(self, argv: list[str], data: str | None = None, **_arguments: Any) -> tuple[int, str, str]:
        self.calls.append((argv, data))
        if argv[1] == "version":
            return 0, json.dumps({"clientVersion": {"version": self.version}}), ""
        return self.answer


def test_version_is_asked_once_and_without_a_cluster() -> None:
    command = Command()
    istioctl = Istioctl(command, "/opt/istioctl")
    assert (istioctl.version(), istioctl.version()) == ("1.29.1", "1.29.1")
    assert command.calls == [(["/opt/istioctl", "version", "--remote=false", "-o", "json"], None)]


@pytest.mark.parametrize("output", ["", "not JSON", "{}", '{"clientVersion": null}', "[]"])
def test_version_of_another_program(output: str) -> None:
    with pytest.raises(IstioctlError, match=r"/bin/true does not answer like istioctl.*istioctl_path"):
        Istioctl(lambda *_args, **_kwargs: (0, output, ""), "/bin/true").version()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(2, "No such file"), "not found at /x.*istioctl_path"),
        (PermissionError(13, "Permission denied"), "/x cannot be run: Permission denied.*istioctl_path"),
        (OSError(8, "Exec format error"), "Exec format error"),
    ],
)
def test_istioctl_that_cannot_be_run(error: OSError, message: str) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> tuple[int, str, str]:
        raise error

    with pytest.raises(IstioctlError, match=message) as raised:
        Istioctl(fail, "/x").version()
    assert raised.value.rc is None


def test_require_version() -> None:
    Istioctl(Command()).require_version("1.29.1")
    with pytest.raises(IstioctlError, match=r"is istioctl 1\.29\.1, but istio_version asks for 1\.30\.0"):
        Istioctl(Command()).require_version("1.30.0")


@pytest.mark.parametrize(
    ("version", "profile", "kubernetes"),
    [
        ("1.11.4", "external", (1, 17)),
        ("1.21.6", "external", (1, 17)),
        ("1.22.0", "remote", (1, 17)),
        ("1.29.1", "remote", (1, 30)),
        ("1.30-alpha.0", "remote", (1, 30)),
        ("v1.31.0", "remote", (1, 32)),
        ("1.10.0", "external", None),
        ("unknown", "remote", None),
    ],
)
def test_what_follows_from_the_version(version: str, profile: str, kubernetes: tuple[int, int] | None) -> None:
    istioctl = Istioctl(Command(version))
    assert istioctl.managed_profile == profile
    assert istioctl.minimum_kubernetes == kubernetes


def test_check_profile() -> None:
    Istioctl(Command("1.21.0")).check_profile("external")
    Istioctl(Command()).check_profile("remote")
    Istioctl(Command()).check_profile(None)
    with pytest.raises(
        IstioctlError, match=r"external \(option spec.profile\) does not exist in Istio 1\.29\.1.*remote"
    ):
        Istioctl(Command()).check_profile("external")


def test_manifest_generate_gives_the_operator_on_standard_input() -> None:
    command = Command(stdout="kind: X", stderr="❗ values.global.a is deprecated\nWARNING: b\n\n! b\n")
    istioctl = Istioctl(command)
    operator = {"kind": "IstioOperator", "spec": {"profile": "remote"}}
    assert istioctl.manifest_generate(operator) == "kind: X"
    argv, data = command.calls[-1]
    assert argv == ["istioctl", "manifest", "generate", "-f", "-"]
    assert json.loads(data or "") == operator
    assert istioctl.warnings == ["values.global.a is deprecated", "b"]


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        (
            "Error: could not unmarshal: error unmarshaling JSON: while decoding JSON: unknown field"
            ' "meshIDx" in istio.operator.v1alpha1.GlobalConfig\n',
            'istioctl manifest generate failed: unknown field "meshIDx" in istio.operator.v1alpha1.GlobalConfig.'
            " Correct that key of the option spec; this version of Istio does not have it.",
        ),
        (
            'Error: merge inputs: profile "nope" not found: open profiles/nope.yaml: file does not exist',
            'istioctl manifest generate failed: profile "nope" not found.'
            " Set spec.profile to a profile of this version of Istio.",
        ),
        ("something else\n", "istioctl manifest generate failed: something else."),
        ("", "istioctl manifest generate failed: return code 1, no message."),
    ],
)
def test_manifest_generate_refused(stderr: str, message: str) -> None:
    with pytest.raises(IstioctlError) as raised:
        Istioctl(Command(rc=1, stderr=stderr)).manifest_generate({})
    assert str(raised.value) == message
    assert (raised.value.rc, raised.value.stderr) == (1, stderr)
    assert raised.value.cmd == ["istioctl", "manifest", "generate", "-f", "-"]
