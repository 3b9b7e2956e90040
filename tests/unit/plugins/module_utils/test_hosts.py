"""Tests of the managed block and of PodHosts over files in memory."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.meshfleet.istio.plugins.module_utils._hosts import (
    HostsError,
    PodHosts,
    check_entries,
    check_marker,
    with_block,
)
from ansible_collections.meshfleet.istio.plugins.module_utils._kube import ClusterError

NAME = "istiod.istio-system.svc.clusterset.local"
ENTRIES = {NAME: "172.30.0.10"}
BEGIN, END = "# BEGIN ANSIBLE MANAGED BLOCK m", "# END ANSIBLE MANAGED BLOCK m"
PLAIN = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n10.0.0.1 node1 # me\n"
DONE = f"{PLAIN}{BEGIN}\n172.30.0.10 {NAME}\n{END}\n"


@pytest.mark.parametrize(
    ("hosts", "message"),
    [
        ({"a_b": "1.2.3.4"}, "'a_b' is not a DNS name"),
        ({"a b": "1.2.3.4"}, "is not a DNS name"),
        ({"a.b\nc": "1.2.3.4"}, "is not a DNS name"),
        ({".".join(["a" * 60] * 5): "1.2.3.4"}, "is not a DNS name"),
        ({"localhost": "1.2.3.4"}, "localhost belongs to the node"),
        ({"a.b": "1.2.3"}, "address of a.b is '1.2.3', which is not an IP address"),
        ({"a.b": "1.2.3.4 evil"}, "is not an IP address"),
        ({"a.b": None}, "is not an IP address"),
    ],
)
def test_check_entries_refuses(hosts: dict[str, Any], message: str) -> None:
    with pytest.raises(HostsError, match=message):
        check_entries(hosts)


def test_check_entries() -> None:
    assert check_entries({"A.b": " 1.2.3.4 ", "c": "fd00::1"}) == {"a.b": "1.2.3.4", "c": "fd00::1"}


@pytest.mark.parametrize("marker", ["", " ", "a\nb", " a"])
def test_check_marker_refuses(marker: str) -> None:
    with pytest.raises(HostsError, match="marker"):
        check_marker(marker)


def test_block_is_added_once() -> None:
    assert with_block(PLAIN, ENTRIES, "m") == (DONE, [])
    assert with_block(DONE, ENTRIES, "m") == (DONE, [])


def test_block_after_a_line_without_an_end() -> None:
    assert with_block(PLAIN.rstrip("\n"), ENTRIES, "m")[0] == DONE


def test_block_follows_the_address_and_keeps_its_place() -> None:
    before = f"{BEGIN}\n1.1.1.1 {NAME}\n{END}\n{PLAIN}"
    after = f"{BEGIN}\n172.30.0.10 {NAME}\n{END}\n{PLAIN}"
    assert with_block(before, ENTRIES, "m") == (after, [])


def test_two_blocks_become_one() -> None:
    block = DONE[len(PLAIN) :]
    assert with_block(DONE + block, ENTRIES, "m") == (DONE, [])


def test_other_markers_are_left_alone() -> None:
    after, adopted = with_block(DONE, {"other.name": "1.1.1.1"}, "n")
    assert after.startswith(DONE)
    assert adopted == []


def test_lines_by_hand_are_adopted() -> None:
    by_hand = [f"172.30.0.10   {NAME}", f"172.30.0.9 {NAME.upper()} keep.me # why", f"# 1.1.1.1 {NAME}"]
    after, adopted = with_block(PLAIN + "\n".join(by_hand) + "\n", ENTRIES, "m")
    assert adopted == by_hand[:2]
    assert after == DONE.replace(BEGIN, f"172.30.0.9 keep.me # why\n# 1.1.1.1 {NAME}\n{BEGIN}")


def test_absent_removes_only_the_block() -> None:
    assert with_block(DONE, {}, "m") == (PLAIN, [])
    assert with_block(PLAIN.rstrip("\n"), {}, "m") == (PLAIN.rstrip("\n"), [])


def test_block_that_never_ends() -> None:
    with pytest.raises(HostsError, match="never ends"):
        with_block(f"{BEGIN}\n1.1.1.1 x\n{PLAIN}", ENTRIES, "m")


# Not list[str]: in those classes, list is a method.
Command = list[str]


class Node:
    """A cluster of kube-apiserver pods with a hosts file each; ``tools``: what their image has."""

    name = "m1"

    def __init__(self, files: dict[str, str], tools: tuple[str, ...] = ("cat", "sh")) -> None:
        self.files = files
        self.tools = tools
        self.written: list[str] = []
        self.fault: tuple[int, str, str] | ClusterError | None = None
        self.rival = ""

    def list(self, *_arguments: Any, **_selectors: Any) -> list[dict[str, Any]]:
        return [{"metadata": {"name": name}, "status": {"phase": "Running"}} for name in self.files]

    def exec(self, pod: str, _namespace: str, _container: str, command: Command) -> tuple[int, str, str]:
        if isinstance(self.fault, ClusterError):
            raise self.fault
        if self.fault is not None:
            return self.fault
        if command[0] not in self.tools:
            raise ClusterError(f'm1: cannot run: exec: "{command[0]}": executable file not found in $PATH')
        if command[0] == "cat":
            return 0, self.files[pod], ""
        assert command[:4] == ["sh", "-c", 'printf %s "$1" > /etc/hosts', "sh"]
        self.files[pod] = command[4] + self.rival
        self.written.append(pod)
        return 0, "", ""


def pods(node: Any) -> PodHosts:
    return PodHosts(node, "kube-system", "component=kube-apiserver", "kube-apiserver")


def test_plan_and_apply() -> None:
    node = Node({"b": DONE, "a": PLAIN})
    plans = pods(node).plan(ENTRIES, "m")
    assert [(plan["name"], plan["changed"]) for plan in plans] == [("a", True), ("b", False)]
    assert node.written == []
    pods(node).apply(plans[0])
    assert node.files == {"a": DONE, "b": DONE}


def test_apply_reads_back() -> None:
    node = Node({"a": PLAIN})
    node.rival = "1.1.1.1 x\n"
    (plan,) = pods(node).plan(ENTRIES, "m")
    with pytest.raises(HostsError, match=r"not what was written to it(.|\n)*127.0.0.1\tlocalhost"):
        pods(node).apply(plan)


def test_no_pods() -> None:
    message = "component=kube-apiserver in namespace kube-system of cluster m1.*label_selector"
    with pytest.raises(HostsError, match=message):
        pods(Node({})).plan(ENTRIES, "m")


def test_broken_block_names_the_pod() -> None:
    with pytest.raises(HostsError, match=r"pod kube-system/a .* on cluster m1: the block .* never ends"):
        pods(Node({"a": f"{BEGIN}\n"})).plan(ENTRIES, "m")


@pytest.mark.parametrize("tools", [(), ("cat",)])
def test_image_without_tools(tools: tuple[str, ...]) -> None:
    node = Node({"a": PLAIN}, tools)
    with pytest.raises(HostsError, match=r"has no (cat|sh), .*istiod_access: service"):
        pods(node).apply(pods(node).plan(ENTRIES, "m")[0])


def test_runtime_code_for_a_missing_program() -> None:
    node = Node({"a": PLAIN})
    node.fault = (127, "", "")
    with pytest.raises(HostsError, match="has no cat"):
        pods(node).plan(ENTRIES, "m")


def test_other_faults() -> None:
    node = Node({"a": PLAIN})
    node.fault = (1, "", "cat: Permission denied\n")
    with pytest.raises(HostsError, match=r"failed \(1\): cat: Permission denied"):
        pods(node).plan(ENTRIES, "m")
    node.fault = ClusterError("m1: not allowed", 403, "Forbidden")
    with pytest.raises(ClusterError, match="not allowed"):
        pods(node).plan(ENTRIES, "m")
