# Copyright: (c) 2026, meshfleet.istio contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""A managed block in the /etc/hosts of pods. Internal use only."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any

from ansible_collections.meshfleet.istio.plugins.module_utils._errors import MeshError
from ansible_collections.meshfleet.istio.plugins.module_utils._kube import ClusterError

if TYPE_CHECKING:
    from ansible_collections.meshfleet.istio.plugins.module_utils._kube import Cluster

HOSTS_FILE = "/etc/hosts"
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")


class HostsError(MeshError):
    """An entry, a hosts file or a pod that cannot be worked with."""


def check_entries(hosts: dict[str, Any]) -> dict[str, str]:
    """Names (lower case) to addresses; raises HostsError naming the first bad one."""
    entries: dict[str, str] = {}
    for key, value in hosts.items():
        name, address = str(key).lower(), str(value).strip()
        if len(name) > 253 or not _NAME.fullmatch(name):
            raise HostsError(
                f"hosts: {key!r} is not a DNS name. Give names with their IP address, for example"
                " {istiod.istio-system.svc.clusterset.local: 172.30.0.10}."
            )
        if name == "localhost":
            raise HostsError("hosts: localhost belongs to the node and is not taken over. Remove it from the option.")
        try:
            ipaddress.ip_address(address)
        except ValueError as error:
            raise HostsError(f"hosts: the address of {name} is {value!r}, which is not an IP address.") from error
        entries[name] = address
    return entries


def check_marker(marker: str) -> None:
    """Raises HostsError for a marker that does not fit in one line of a comment."""
    if not marker.strip() or len(marker.splitlines()) != 1 or marker != marker.strip():
        raise HostsError(f"marker: {marker!r} is not one line of text, for example meshfleet.istio.")


def with_block(text: str, entries: dict[str, str], marker: str) -> tuple[str, list[str]]:
    """A hosts file with exactly ``entries`` in the block of ``marker``; without the block when there are no entries.

    The block keeps its place, a new one goes to the end. A line outside the block loses the names that are in
    ``entries``, else the resolver would go on using its address; such lines are returned as they were. All other lines
    stay as they are. Raises HostsError for a block that never ends.
    """
    begin, end = f"# BEGIN ANSIBLE MANAGED BLOCK {marker}", f"# END ANSIBLE MANAGED BLOCK {marker}"
    lines: list[str] = []
    adopted: list[str] = []
    position: int | None = None
    inside = False
    for line in text.splitlines():
        if line.strip() == begin and not inside:
            inside = True
            position = len(lines) if position is None else position
        elif line.strip() == end and inside:
            inside = False
        elif not inside:
            rest = _without_names(line, entries)
            if rest != line:
                adopted.append(line)
            if rest is not None:
                lines.append(rest)
    if inside:
        raise HostsError(f"the block that begins with {begin!r} never ends: remove that line or add {end!r} by hand")
    if entries:
        block = [begin, *(f"{entries[name]} {name}" for name in sorted(entries)), end]
        position = len(lines) if position is None else position
        lines[position:position] = block
    elif position is None:
        return text, []
    return "".join(f"{line}\n" for line in lines), adopted


def _without_names(line: str, names: dict[str, str]) -> str | None:
    """A line of a hosts file without some names; the very same line when it has none, None when nothing is left."""
    content, hash_sign, comment = line.partition("#")
    fields = content.split()
    kept = [name for name in fields[1:] if name.lower() not in names]
    if len(kept) == len(fields[1:]):
        return line
    if not kept:
        return None
    return " ".join([fields[0], *kept]) + (f" #{comment}" if hash_sign else "")


class PodHosts:
    """The /etc/hosts of the pods that a selector finds on one cluster."""

    def __init__(self, cluster: Cluster, namespace: str, label_selector: str, container: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.label_selector = label_selector
        self.container = container

    def pods(self) -> list[str]:
        """Names of the running pods, sorted. Raises HostsError when there are none."""
        found = self.cluster.list("v1", "Pod", self.namespace, label_selector=self.label_selector)
        names = sorted(
            pod["metadata"]["name"]
            for pod in found
            if pod.get("status", {}).get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")
        )
        if not names:
            raise HostsError(
                f"No running pod with the labels {self.label_selector} in namespace {self.namespace} of cluster"
                f" {self.cluster.name}. Set label_selector and namespace to where kube-apiserver runs (OpenShift:"
                " apiserver=true in openshift-kube-apiserver). Where it does not run as a pod, as in hosted control"
                " planes, use service mode (istiod_access: service) instead."
            )
        return names

    def plan(self, entries: dict[str, str], marker: str) -> list[dict[str, Any]]:
        """For each pod: ``name``, ``before``, ``after`` (the whole file), ``adopted``, ``changed``. Changes nothing."""
        plans = []
        for pod in self.pods():
            before = self._read(pod)
            try:
                after, adopted = with_block(before, entries, marker)
            except HostsError as error:
                raise HostsError(f"{HOSTS_FILE} of {self._where(pod)}: {error}.") from error
            plans.append(
                {"name": pod, "before": before, "after": after, "adopted": adopted, "changed": after != before}
            )
        return plans

    def apply(self, plan: dict[str, Any]) -> None:
        """Write one pod's file and read it back. Raises HostsError when the file is not what was written."""
        pod, after = plan["name"], plan["after"]
        # In place (the file is a bind mount, a rename fails) and by one write of a builtin: shorter than a pipe.
        self._exec(pod, ["sh", "-c", f'printf %s "$1" > {HOSTS_FILE}', "sh", after])
        if self._read(pod) != after:
            raise HostsError(
                f"{HOSTS_FILE} of {self._where(pod)} is not what was written to it. Something else writes it too; run"
                f" again. Before the change it was:\n{plan['before']}"
            )

    def _read(self, pod: str) -> str:
        return self._exec(pod, ["cat", HOSTS_FILE])

    def _exec(self, pod: str, command: list[str]) -> str:
        tool = command[0]
        try:
            code, output, errors = self.cluster.exec(pod, self.namespace, self.container, command)
        except ClusterError as error:
            if "executable file not found" in str(error) or "no such file or directory" in str(error):
                raise HostsError(self._no_tool(pod, tool)) from error
            raise
        # 126 and 127 are the runtime's own codes for a program that cannot be run or is not there.
        if code in (126, 127):
            raise HostsError(self._no_tool(pod, tool))
        if code != 0:
            reason = (errors or output).strip()
            raise HostsError(f"{tool} on {HOSTS_FILE} of {self._where(pod)} failed ({code}): {reason}")
        return output

    def _no_tool(self, pod: str, tool: str) -> str:
        return (
            f"The image of {self._where(pod)} has no {tool}, so its {HOSTS_FILE} cannot be edited (kubeadm's image of"
            " kube-apiserver has no shell). Use service mode for this cluster: istiod_access: service."
        )

    def _where(self, pod: str) -> str:
        return f"pod {self.namespace}/{pod} (container {self.container}) on cluster {self.cluster.name}"
