# Copyright: (c) 2026, meshfleet.istio contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Waiting until what was applied is ready, and why it is not. Internal use only."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ansible_collections.meshfleet.istio.plugins.module_utils._errors import MeshError
from ansible_collections.meshfleet.istio.plugins.module_utils._kube import Cluster, describe

_WORKLOADS = ("Deployment", "DaemonSet")
# The last word of the kubelet on a pod that has no container status worth reading.
_TELLING_EVENTS = ("FailedCreatePodSandBox", "FailedMount", "FailedAttachVolume", "FailedCreate", "Unhealthy", "Failed")


class NotReadyError(MeshError):
    """Something was not ready in time; the message says what, and why."""


class Waiter:
    """Waits on one cluster. ``timeout``: seconds for all that is waited for together."""

    def __init__(self, cluster: Cluster, timeout: float) -> None:
        self.cluster = cluster
        self.timeout = timeout
        self._deadline = time.monotonic() + timeout

    def ready(self, items: list[dict[str, Any]], settled: bool = False, ca_bundle: bool = True) -> None:
        """Return when the objects are ready: workloads rolled out, Services with endpoints, webhooks with a caBundle.

        ``items`` are the objects as rendered or as read. ``settled``: nothing was changed and they are as just read, so
        only what they themselves say is not ready is looked at again. ``ca_bundle``: an istiod of this cluster is
        expected to fill the caBundle of its mutating webhooks; for a managed cluster istiod does so only once it has
        the remote secret. Raises NotReadyError after the timeout.
        """
        for item in items:
            if item["kind"] in _WORKLOADS and not (settled and rolled_out(item)):
                self._wait(item, rolled_out, self._why_not_rolled_out)
        for item in items:
            if item["kind"] == "MutatingWebhookConfiguration" and ca_bundle and not (settled and has_ca_bundle(item)):
                self._wait(item, has_ca_bundle, _why_no_ca_bundle)
        if not settled:
            for item in items:
                if item["kind"] == "Service" and _is_backed(item, items):
                    self._endpoints(item)

    def gone(self, items: list[dict[str, Any]]) -> None:
        """Return when the workloads among the objects, and so their pods, no longer exist."""
        for item in items:
            metadata = item["metadata"]
            while item["kind"] in _WORKLOADS and self.cluster.get(
                item["apiVersion"], item["kind"], metadata["name"], metadata.get("namespace")
            ):
                if time.monotonic() > self._deadline:
                    raise NotReadyError(
                        f"{self.cluster.name}: {_title(item)} is still being deleted after {self.timeout:g} s: its pods"
                        " do not end. Look at them, or raise wait_timeout."
                    )
                time.sleep(0.5)

    def _wait(
        self,
        item: dict[str, Any],
        is_ready: Callable[[dict[str, Any]], bool],
        why: Callable[[dict[str, Any] | None], str],
    ) -> None:
        metadata = item["metadata"]
        last = None
        # At least one look, even when what came before took all of the time.
        left = max(1.0, self._deadline - time.monotonic())
        for last in self.cluster.watch(
            item["apiVersion"], item["kind"], metadata["name"], metadata.get("namespace"), left
        ):
            if is_ready(last):
                return
        raise NotReadyError(
            f"{self.cluster.name}: {_title(item)} is not ready after {self.timeout:g} s (wait_timeout): {why(last)}"
        )

    def _endpoints(self, service: dict[str, Any]) -> None:
        metadata = service["metadata"]
        left = max(1.0, self._deadline - time.monotonic())
        selector = f"kubernetes.io/service-name={metadata['name']}"
        version = "discovery.k8s.io/v1"
        if not self.cluster.serves(version, "EndpointSlice"):
            return
        for endpoint_slice in self.cluster.watch(version, "EndpointSlice", None, metadata["namespace"], left, selector):
            for endpoint in endpoint_slice.get("endpoints") or []:
                if (endpoint.get("conditions") or {}).get("ready", True):
                    return
        raise NotReadyError(
            f"{self.cluster.name}: {_title(service)} has no ready endpoint after {self.timeout:g} s (wait_timeout): no"
            f" ready pod has the labels {service['spec']['selector']}."
        )

    def _why_not_rolled_out(self, workload: dict[str, Any] | None) -> str:
        if workload is None:
            return "it does not exist."
        status, metadata = workload.get("status") or {}, workload["metadata"]
        reasons = [
            str(item.get("message"))
            for item in status.get("conditions") or []
            if item["type"] == "ReplicaFailure" and item["status"] == "True"
        ]
        labels = workload["spec"]["selector"].get("matchLabels") or {}
        selector = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
        for pod in self.cluster.list("v1", "Pod", metadata.get("namespace"), label_selector=selector):
            reason = self._why_not_ready(pod)
            if reason and reason not in reasons:
                reasons.append(reason)
        if not reasons:
            reasons = self._events(workload)[-1:] or [_counts(workload)]
        more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        return "; ".join(reasons[:3]) + more

    def _why_not_ready(self, pod: dict[str, Any]) -> str:
        """Why a pod is not ready; "" when it is."""
        status, metadata = pod.get("status") or {}, pod["metadata"]
        conditions = {item["type"]: item for item in status.get("conditions") or []}
        if conditions.get("Ready", {}).get("status") == "True":
            return ""
        name = f"pod {metadata['name']}"
        scheduled = conditions.get("PodScheduled", {})
        if scheduled.get("status") == "False":
            return f"{name} cannot be scheduled: {scheduled.get('message', scheduled.get('reason', ''))}"
        containers = (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or [])
        for container in containers:
            state = container.get("state") or {}
            waiting = state.get("waiting") or {}
            if waiting.get("reason") in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"):
                message = waiting.get("message", waiting["reason"])
                return f"{name} cannot get the image {container.get('image', '')}: {message}"
            crash = (container.get("lastState") or {}).get("terminated") or state.get("terminated") or {}
            if crash.get("exitCode"):
                previous = "terminated" in (container.get("lastState") or {})
                line = self.cluster.log(
                    metadata["name"], metadata["namespace"], container["name"], previous=previous
                ) or crash.get("message", "")
                why = f"{crash.get('reason', 'Error')}, exit code {crash['exitCode']}"
                return f"{name}: the container {container['name']} crashed ({why}); its last line: {line or '(none)'}"
            if waiting.get("message"):
                return f"{name}: the container {container['name']} waits: {waiting['reason']}: {waiting['message']}"
        events = self._events(pod)
        if events:
            return f"{name}: {events[-1]}"
        unready = [item["name"] for item in containers if not item.get("ready")]
        return f"{name} is {status.get('phase', 'Unknown')}, not ready: {', '.join(unready) or 'no container yet'}"

    def _events(self, item: dict[str, Any]) -> list[str]:
        """What Kubernetes said went wrong with an object, oldest first."""
        metadata = item["metadata"]
        selector = f"involvedObject.uid={metadata.get('uid', '')}"
        events = self.cluster.list("v1", "Event", metadata.get("namespace"), field_selector=selector)
        events.sort(key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
        return [
            f"{event['reason']}: {str(event.get('message', '')).strip()}"
            for event in events
            if event.get("type") == "Warning" and event.get("reason") in _TELLING_EVENTS
        ]


def _title(item: dict[str, Any]) -> str:
    return describe(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"])


def rolled_out(workload: dict[str, Any]) -> bool:
    """Whether a Deployment or DaemonSet runs as its newest specification says, everywhere it should."""
    status, metadata = workload.get("status") or {}, workload["metadata"]
    # An object as rendered has no generation: it says nothing about the cluster.
    if status.get("observedGeneration", 0) < metadata.get("generation", 1):
        return False
    if workload["kind"] == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        return bool(status.get("updatedNumberScheduled", 0) >= wanted and status.get("numberAvailable", 0) >= wanted)
    wanted = workload["spec"].get("replicas", 1)
    counts = [status.get(name, 0) for name in ("updatedReplicas", "availableReplicas")]
    return bool(min(counts) >= wanted >= status.get("replicas", 0))


def _counts(workload: dict[str, Any]) -> str:
    status = workload.get("status") or {}
    if workload["kind"] == "DaemonSet":
        return f"{status.get('numberAvailable', 0)} of {status.get('desiredNumberScheduled', '?')} pods are available."
    return f"{status.get('availableReplicas', 0)} of {workload['spec'].get('replicas', 1)} pods are available."


def has_ca_bundle(configuration: dict[str, Any]) -> bool:
    """Whether each webhook knows the authority of the server it calls."""
    return all(webhook["clientConfig"].get("caBundle") for webhook in configuration.get("webhooks") or [])


def _why_no_ca_bundle(configuration: dict[str, Any] | None) -> str:
    if configuration is None:
        return "it does not exist."
    names = [item["name"] for item in configuration.get("webhooks") or [] if not item["clientConfig"].get("caBundle")]
    return (
        f"istiod has not written the caBundle of {', '.join(names)}. Look at istiod's log; its revision must be that of"
        " the label istio.io/rev of the webhook."
    )


def _is_backed(service: dict[str, Any], items: list[dict[str, Any]]) -> bool:
    """Whether one of the Deployments makes pods that the Service selects."""
    selector = service["spec"].get("selector")
    if not selector:
        return False
    for item in items:
        if item["kind"] == "Deployment" and item["metadata"].get("namespace") == service["metadata"].get("namespace"):
            labels = item["spec"]["template"]["metadata"].get("labels") or {}
            if item["spec"].get("replicas", 1) and selector.items() <= labels.items():
                return True
    return False
