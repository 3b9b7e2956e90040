#!/usr/bin/python
# -*- coding: utf-8 -*-

# Copyright: (c) 2026, meshfleet.istio contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Ansible module: one IstioOperator on one cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
module: istio_operator
short_description: Put an IstioOperator on a cluster, with a plan before every change
version_added: 1.0.0
author:
  - meshfleet.istio contributors (@meshfleet)
description:
  - Renders an IstioOperator with C(istioctl manifest generate), compares the objects with those on the cluster, and
    creates, changes and deletes what is needed for the cluster to hold exactly these objects.
  - The API server is asked for the outcome of each change (server-side apply as a dry run) before anything is changed.
    What it would refuse fails the task while the cluster is as it was.
  - Fields that istiod or the API server own are not differences. These are the C(caBundle) of webhooks, the
    C(failurePolicy) that istiod sets on its validating webhook, and all defaults.
  - Owned objects carry the label C(operator.meshfleet.istio/NAMESPACE.NAME) and are applied by the field manager
    C(meshfleet.istio/NAMESPACE.NAME), so that several operators live side by side, also in one namespace. What two
    operators render, such as the definitions of Istio's kinds, goes only when the last of them goes.
  - Adopts what was installed by C(istioctl install) or C(kubectl apply) under the same names; nothing is recreated.
options:
  state:
    description:
      - V(present) makes the cluster hold what O(spec) renders to, and deletes what the operator owned and no longer
        renders.
      - V(absent) deletes all that the operator owns, its mutating webhooks first. Namespaces stay, and so does what
        istiod made by itself, such as its certificate authority in the Secret C(istio-ca-secret).
    type: str
    choices: [present, absent]
    default: present
  name:
    description:
      - The name of the IstioOperator. Together with O(namespace) it identifies the operator on the cluster.
    type: str
    required: true
  namespace:
    description:
      - The namespace of the IstioOperator, in which istiod and the gateways live. It is created when it does not exist.
    type: str
    default: istio-system
  spec:
    description:
      - The C(spec) of the IstioOperator, with keys that the version of C(istioctl) knows.
      - Required for O(state=present). With O(state=absent) what it renders to is deleted too, even when this module
        never applied it.
    type: dict
  istio_version:
    description:
      - The version that C(istioctl) has to have, for example V(1.29.1). Unset, any version is taken.
    type: str
  istioctl_path:
    description:
      - The path of C(istioctl), or its name in E(PATH).
    type: path
    default: istioctl
  force_conflicts:
    description:
      - Take over fields that other field managers own and that have other values, as when adopting what
        C(istioctl install) installed. Otherwise such conflicts fail the task, and each is named.
      - Edits of an object that the operator applied before, as by C(kubectl edit), are no conflicts. They are shown in
        the plan and put back.
    type: bool
    default: false
  wait:
    description:
      - Wait until it is ready. Deployments and DaemonSets are rolled out, Services have endpoints, and the mutating
        webhooks of a control plane have a C(caBundle).
      - With O(state=absent), wait until the pods of deleted workloads are gone.
    type: bool
    default: true
  wait_timeout:
    description:
      - The longest time to wait, in seconds. After it the task fails and says why it is not ready.
    type: int
    default: 300
  delete_crds:
    description:
      - Delete CustomResourceDefinitions too, when they are no longer rendered or O(state=absent). Those that have
        custom resources stay unless O(delete_custom_resources) is set.
    type: bool
    default: false
  delete_custom_resources:
    description:
      - Let O(delete_crds) delete CustomResourceDefinitions that have custom resources. All of these are deleted with
        them, in all namespaces.
    type: bool
    default: false
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - meshfleet.istio.attributes
attributes:
  check_mode:
    support: full
    details: The API server is asked (dry run). Objects in a namespace that does not exist yet are planned unasked.
  diff_mode:
    support: full
    details: Changed objects are shown as YAML, created and deleted ones by name. The values of Secrets are masked.
  idempotent:
    support: full
requirements:
  - python >= 3.9
  - kubernetes >= 24.2.0
  - PyYAML >= 5.1
  - istioctl
seealso:
  - module: kubernetes.core.k8s
"""

EXAMPLES = r"""
- name: Show what an upgrade would change
  meshfleet.istio.istio_operator:
    context: hub
    name: hub
    istioctl_path: /opt/istio-1.29.1/bin/istioctl
    spec:
      profile: minimal
  check_mode: true
  diff: true

- name: Put an external control plane on the hub
  meshfleet.istio.istio_operator:
    context: hub
    name: hub
    istio_version: 1.29.1
    spec:
      profile: empty
      components:
        base:
          enabled: true
        pilot:
          enabled: true
        ingressGateways:
          - name: istio-ingressgateway
            enabled: true
      values:
        global:
          meshID: mesh1
          network: network1
          externalIstiod: true

- name: Take over what istioctl install put on a cluster
  meshfleet.istio.istio_operator:
    context: hub
    name: hub
    force_conflicts: true
    spec:
      profile: default

- name: Take an operator away, and Istio's definitions where no custom resource uses them
  meshfleet.istio.istio_operator:
    context: hub
    name: hub
    state: absent
    delete_crds: true
"""

RETURN = r"""
plan:
  description:
    - What was done, or would be done in check mode, object by object and in this order.
  returned: when a plan was made
  type: list
  elements: dict
  sample:
    - action: changed
      api_version: apps/v1
      kind: Deployment
      namespace: istio-system
      name: istiod
  contains:
    action:
      description:
        - V(created), V(changed), V(unchanged) or V(pruned) (deleted).
        - V(released) is an object that another operator owns too; only the mark of this one goes away.
        - V(kept) is a CustomResourceDefinition that is no longer rendered and stays.
      type: str
    api_version:
      description: The API version of the object.
      type: str
    kind:
      description: The kind of the object.
      type: str
    namespace:
      description: Its namespace, V(null) for a cluster-wide object.
      type: str
    name:
      description: Its name.
      type: str
istio_version:
  description: The version of C(istioctl), which is that of what it renders.
  returned: when istioctl was run
  type: str
  sample: 1.29.1
"""

import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.meshfleet.istio.plugins.module_utils import _manifest, _plan
from ansible_collections.meshfleet.istio.plugins.module_utils._errors import MeshError
from ansible_collections.meshfleet.istio.plugins.module_utils._istioctl import Istioctl, IstioctlError
from ansible_collections.meshfleet.istio.plugins.module_utils._kube import AUTH_OPTIONS, Cluster, connect
from ansible_collections.meshfleet.istio.plugins.module_utils._wait import Waiter

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class OptionError(MeshError):
    """An option has a value that cannot be."""


def argument_spec() -> dict[str, Any]:
    """The options of the module."""
    return {
        **AUTH_OPTIONS,
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "name": {"type": "str", "required": True},
        "namespace": {"type": "str", "default": "istio-system"},
        "spec": {"type": "dict"},
        "istio_version": {"type": "str"},
        "istioctl_path": {"type": "path", "default": "istioctl"},
        "force_conflicts": {"type": "bool", "default": False},
        "wait": {"type": "bool", "default": True},
        "wait_timeout": {"type": "int", "default": 300},
        "delete_crds": {"type": "bool", "default": False},
        "delete_custom_resources": {"type": "bool", "default": False},
    }


def check_options(params: dict[str, Any]) -> None:
    """Raise OptionError for values that the argument specification cannot refuse."""
    for option in ("name", "namespace"):
        if not NAME.fullmatch(params[option]):
            raise OptionError(
                f"{option}: {params[option]!r} cannot be the name of a Kubernetes object: use lower-case letters,"
                " digits and '-', at most 63 of them."
            )
    if params["wait_timeout"] < 1:
        raise OptionError(f"wait_timeout: {params['wait_timeout']} is not a number of seconds above 0.")
    if params["delete_custom_resources"] and not params["delete_crds"]:
        raise OptionError("delete_custom_resources: it says how far delete_crds goes; set delete_crds to true too.")


def render(istioctl: Istioctl, cluster: Cluster, params: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects that the operator renders to; MeshError when this version or this cluster cannot have them."""
    minimum = istioctl.minimum_kubernetes
    if minimum is not None and cluster.version < minimum:
        raise IstioctlError(
            f"{cluster.name}: Kubernetes {cluster.git_version} is too old for Istio {istioctl.version()}, which needs"
            f" {minimum[0]}.{minimum[1]} or newer. Upgrade the cluster, or set istio_version and istioctl_path"
            " to an older Istio."
        )
    operator = {
        "apiVersion": "install.istio.io/v1alpha1",
        "kind": "IstioOperator",
        "metadata": {"name": params["name"], "namespace": params["namespace"]},
        "spec": params["spec"],
    }
    return _manifest.parse(istioctl.manifest_generate(operator))


def run(module: AnsibleModule, result: dict[str, Any]) -> None:
    """Do the task; ``result`` grows as far as it gets. Raises MeshError."""
    params = module.params
    check_options(params)
    present = params["state"] == "present"
    istioctl = Istioctl(module.run_command, params["istioctl_path"])
    if present:  # What needs no cluster fails before one is asked
        if params["istio_version"]:
            istioctl.require_version(params["istio_version"])
        istioctl.check_profile(params["spec"].get("profile"))
        result["istio_version"] = istioctl.version()
    cluster = connect(module)
    planner = _plan.Planner(
        cluster,
        _plan.Operator(params["namespace"], params["name"]),
        params["force_conflicts"],
        params["delete_crds"],
        params["delete_custom_resources"],
    )
    if present:
        rendered = render(istioctl, cluster, params)
        plan = planner.present(rendered)
    else:
        rendered = rendered_if_possible(module, istioctl, cluster)
        plan = planner.absent(rendered)
    for warning in istioctl.warnings:
        module.warn(f"istioctl: {warning}")
    result["changed"] = _plan.changes(plan)
    result["plan"] = [entry.data() for entry in plan]
    if module._diff:
        result["diff"] = _plan.diff(plan)
    if module.check_mode:
        return
    planner.carry_out(plan, foreground=params["wait"])
    if params["wait"]:
        waiter = Waiter(cluster, params["wait_timeout"])
        if present:
            applied = [
                entry.live or entry.definition for entry in plan if entry.action in ("created", "changed", "unchanged")
            ]
            waiter.ready(applied, settled=not result["changed"], ca_bundle=_is_control_plane(rendered))
        else:
            waiter.gone([entry.live for entry in plan if entry.action == "pruned" and entry.live])


def rendered_if_possible(module: AnsibleModule, istioctl: Istioctl, cluster: Cluster) -> list[dict[str, Any]]:
    """What ``spec`` renders to, for state absent; without istioctl the labels say what there is."""
    if not module.params["spec"]:
        return []
    try:
        return render(istioctl, cluster, module.params)
    except IstioctlError as error:
        module.warn(f"Only what carries this operator's label is deleted, as spec cannot be rendered: {error}")
        return []


def _is_control_plane(rendered: list[dict[str, Any]]) -> bool:
    return any(
        item["kind"] == "Deployment" and (item["metadata"].get("labels") or {}).get("app") == "istiod"
        for item in rendered
    )


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec=argument_spec(),
        required_if=[("state", "present", ["spec"])],
        supports_check_mode=True,
    )
    result: dict[str, Any] = {"changed": False}
    try:
        run(module, result)
    except MeshError as error:
        module.fail_json(msg=str(error), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
