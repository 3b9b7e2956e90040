# Copyright: (c) 2026, meshfleet.istio contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What istiod itself knows: remote clusters and connected proxies. Internal use only."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Callable

from ansible_collections.meshfleet.istio.plugins.module_utils._errors import MeshError
from ansible_collections.meshfleet.istio.plugins.module_utils._kube import ClusterError

if TYPE_CHECKING:
    from ansible_collections.meshfleet.istio.plugins.module_utils._kube import Cluster

# Seconds between two looks at istiod while waiting.
POLL_INTERVAL = 0.5
# Seconds after which `closed` counts as final: istiod 1.29 never leaves that state, later versions pass through it.
CLOSED_IS_FINAL_AFTER = 10.0

# xDS type URL -> short name, as in istio's pkg/model/xds.go. Other types (health, debug) say nothing about sync.
TYPE_PREFIX = "type.googleapis.com/"
SHORT_TYPES = {
    f"{TYPE_PREFIX}envoy.config.cluster.v3.Cluster": "CDS",
    f"{TYPE_PREFIX}envoy.config.listener.v3.Listener": "LDS",
    f"{TYPE_PREFIX}envoy.config.endpoint.v3.ClusterLoadAssignment": "EDS",
    f"{TYPE_PREFIX}envoy.config.route.v3.RouteConfiguration": "RDS",
    f"{TYPE_PREFIX}envoy.config.core.v3.TypedExtensionConfig": "ECDS",
    f"{TYPE_PREFIX}istio.workload.Address": "WDS",
    f"{TYPE_PREFIX}istio.workload.Workload": "WDS",
    f"{TYPE_PREFIX}istio.security.Authorization": "WADS",
}
# Types that `istioctl proxy-status` always shows, with their field prefix in istiod before 1.27.
CORE_TYPES = {"CDS": "cluster", "LDS": "listener", "EDS": "endpoint", "RDS": "route"}


class IstiodError(MeshError):
    """istiod is missing, does not answer, or did not reach the wanted state."""


class ClosedError(IstiodError):
    """istiod stopped reading a cluster for good: only a restart of istiod brings it back."""


class Istiod:
    """All replicas of one istiod. ``revision`` "" takes those of any revision."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str = "istio-system",
        revision: str = "default",
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.revision = revision
        self._sleep = sleep
        self._clock = clock

    def replicas(self) -> list[str]:
        """Names of the running istiod pods, sorted; those that are being deleted do not count."""
        selector = "app=istiod" + (f",istio.io/rev={self.revision}" if self.revision else "")
        pods = self.cluster.list("v1", "Pod", self.namespace, label_selector=selector)
        return sorted(
            pod["metadata"]["name"]
            for pod in pods
            if pod.get("status", {}).get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")
        )

    def debug(self, pod: str, path: str) -> Any:
        """The JSON of istiod's ``/debug/<path>``.

        Asked from inside the pod, where istiod wants no credential: it refuses the API server's pod proxy.
        """
        command = ["pilot-discovery", "request", "GET", f"/debug/{path}"]
        code, output, errors = self.cluster.exec(pod, self.namespace, "discovery", command)
        where = f"istiod {self.namespace}/{pod} on cluster {self.cluster.name}"
        if code != 0:
            raise IstiodError(f"{where} does not answer /debug/{path}: {(errors or output).strip()}")
        try:
            return json.loads(output)
        except ValueError as error:
            raise IstiodError(f"{where} answers /debug/{path} with what is not JSON: {output[:200]!r}") from error

    def remote_clusters(self) -> list[dict[str, Any]]:
        """What each replica reads: ``replica``, ``id``, ``secret_name``, ``sync_status``.

        istiod's own cluster is among them, with ``secret_name`` "".
        """
        return [entry for pod in self.replicas() for entry in self._clusters_of(pod)]

    def proxies(self) -> list[dict[str, Any]]:
        """Connected proxies: ``name``, ``namespace``, ``cluster``, ``istiod``, ``version``, ``synced``, ``types``."""
        found = [
            proxy
            for pod in self.replicas()
            for entry in self.debug(pod, "syncz") or []
            for proxy in [_proxy(entry, pod)]
            if proxy is not None
        ]
        return sorted(found, key=lambda proxy: (proxy["cluster"], proxy["namespace"], proxy["name"]))

    def wait_synced(self, cluster_id: str, timeout: float) -> list[dict[str, Any]]:
        """Wait until every replica shows ``synced`` for a cluster; returns ``replica`` and ``sync_status`` of each.

        ``timeout`` in seconds. Raises ClosedError when a replica has stopped reading the cluster, IstiodError naming
        each replica's state on timeout, and IstiodError when no replica runs.
        """
        start = self._clock()
        closed_since: float | None = None
        while True:
            states = {pod: self._state(pod, cluster_id) for pod in self.replicas()}
            now = self._clock()
            if states and all(state == "synced" for state in states.values()):
                return [{"replica": pod, "sync_status": state} for pod, state in states.items()]
            if "closed" not in states.values():
                closed_since = None
            elif closed_since is None:
                closed_since = now
            closed_for = 0.0 if closed_since is None else now - closed_since
            if closed_for >= CLOSED_IS_FINAL_AFTER or (now - start >= timeout and closed_since is not None):
                raise ClosedError(
                    f"{self._report(cluster_id, states, now - start)} A rolling restart of istiod heals it."
                )
            if now - start >= timeout:
                raise IstiodError(self._report(cluster_id, states, timeout))
            self._sleep(POLL_INTERVAL)

    def _report(self, cluster_id: str, states: dict[str, str], seconds: float) -> str:
        if not states:
            revision = f" with revision {self.revision}" if self.revision else ""
            return f"No istiod{revision} runs in namespace {self.namespace} of cluster {self.cluster.name}."
        each = ", ".join(f"{pod}: {state}" for pod, state in states.items())
        return (
            f"Cluster {cluster_id} is not synced on every istiod replica of cluster {self.cluster.name}"
            f" after {seconds:.0f} s ({each})."
        )

    def _state(self, pod: str, cluster_id: str) -> str:
        """One replica's state for a cluster, in words; a replica that starts or stops may not answer yet."""
        try:
            clusters = self._clusters_of(pod)
        except (ClusterError, IstiodError) as error:
            return f"no answer ({error})"
        return next((entry["sync_status"] for entry in clusters if entry["id"] == cluster_id), "unknown cluster")

    def _clusters_of(self, pod: str) -> list[dict[str, Any]]:
        return [
            {
                "replica": pod,
                "id": entry.get("id", ""),
                "secret_name": entry.get("secretName", ""),
                "sync_status": entry.get("syncStatus", ""),
            }
            for entry in self.debug(pod, "clusterz") or []
        ]


def _proxy(entry: dict[str, Any], istiod: str) -> dict[str, Any] | None:
    """One entry of syncz; None for a client that is no proxy, such as istioctl."""
    statuses: dict[str, str] = {}
    if "resources" in entry:
        for url, resource in (entry["resources"] or {}).items():
            if url in SHORT_TYPES:
                statuses[SHORT_TYPES[url]] = _status(
                    resource.get("sent", ""), resource.get("acked", ""), resource.get("lastError", "")
                )
    else:
        for short, prefix in CORE_TYPES.items():
            sent, acked = entry.get(f"{prefix}_sent", ""), entry.get(f"{prefix}_acked", "")
            if sent or acked:
                statuses[short] = _status(sent, acked, "")
    if not statuses:
        return None
    # Namespaces have no dots, pod names may.
    name, _dot, namespace = str(entry.get("proxy", "")).rpartition(".")
    return {
        "name": name,
        "namespace": namespace,
        "cluster": entry.get("cluster_id", ""),
        "istiod": istiod,
        "version": entry.get("istio_version", ""),
        "synced": _is_synced(statuses),
        "types": {**dict.fromkeys(CORE_TYPES, "IGNORED"), **statuses},
    }


def _status(sent: str, acked: str, error: str) -> str:
    """The rule of `istioctl proxy-status` (istio's pilot/pkg/xds/statusgen.go, debugSyncStatus)."""
    if error:
        return "ERROR"
    if not sent:
        return "NOT SENT"
    return "SYNCED" if sent == acked else "STALE"


def _is_synced(statuses: dict[str, str]) -> bool:
    """NOT SENT is healthy where istiod has nothing to send (a gateway without routes), never for CDS and LDS."""
    if any(status in ("STALE", "ERROR") for status in statuses.values()):
        return False
    return "SYNCED" in statuses.values() and "NOT SENT" not in (statuses.get("CDS"), statuses.get("LDS"))
