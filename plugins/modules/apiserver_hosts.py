#!/usr/bin/python
# -*- coding: utf-8 -*-

# Copyright: (c) 2026, meshfleet.istio contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The module apiserver_hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: apiserver_hosts
short_description: Keep a block of names in the hosts file of kube-apiserver pods
version_added: 1.0.0
author: meshfleet.istio contributors (@meshfleet)
description:
  - Keeps one marked block in C(/etc/hosts) of every kube-apiserver pod of a cluster, so that the API server finds a
    webhook by a name that its node's DNS does not know.
  - A name in O(hosts) that stands outside the block (the published procedure adds such a line by hand) is taken over.
    It is removed there, and RV(pods[].adopted) shows the line. All other lines stay.
  - The file belongs to the pod and is lost when the pod restarts. Run again then, or reach the webhook through a
    Service, which needs no such entry.
  - Needs a shell and C(cat) in the container's image. OpenShift's has them, the upstream image of kubeadm has not.
options:
  state:
    description: Whether the block is to be there. V(absent) leaves lines outside the block alone.
    type: str
    choices: [present, absent]
    default: present
  hosts:
    description: Names and the IP address of each. Required when O(state=present).
    type: dict
  namespace:
    description: Namespace of the kube-apiserver pods. OpenShift uses V(openshift-kube-apiserver).
    type: str
    default: kube-system
  label_selector:
    description: Labels that find the kube-apiserver pods. OpenShift uses V(apiserver=true).
    type: str
    default: component=kube-apiserver
  container:
    description: Container in the pods.
    type: str
    default: kube-apiserver
  marker:
    description: Name in the block's first and last line. Different names make different blocks.
    type: str
    default: meshfleet.istio
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - meshfleet.istio.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: One diff for each pod.
  idempotent:
    support: full
  action_group:
    support: full
requirements:
  - kubernetes
"""

EXAMPLES = r"""
- name: Let the API server find the hub's istiod by name
  meshfleet.istio.apiserver_hosts:
    context: mcsdemo1
    hosts:
      istiod.istio-system.svc.clusterset.local: 172.30.0.10

- name: The same on OpenShift
  meshfleet.istio.apiserver_hosts:
    context: mcsdemo1
    namespace: openshift-kube-apiserver
    label_selector: apiserver=true
    hosts:
      istiod.istio-system.svc.clusterset.local: 172.30.0.10

- name: Take the block away
  meshfleet.istio.apiserver_hosts:
    context: mcsdemo1
    state: absent
"""

RETURN = r"""
pods:
  description: The kube-apiserver pods, by name.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the pod.
      type: str
    changed:
      description: Whether its file was changed.
      type: bool
    adopted:
      description: Lines outside the block, as they were, from which names were taken over.
      type: list
      elements: str
  sample: [{name: kube-apiserver-node1, changed: true, adopted: []}]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.meshfleet.istio.plugins.module_utils._errors import MeshError
from ansible_collections.meshfleet.istio.plugins.module_utils._hosts import (
    HOSTS_FILE,
    HostsError,
    PodHosts,
    check_entries,
    check_marker,
)
from ansible_collections.meshfleet.istio.plugins.module_utils._kube import AUTH_OPTIONS, connect


def argument_spec() -> dict[str, Any]:
    return {
        **AUTH_OPTIONS,
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "hosts": {"type": "dict"},
        "namespace": {"type": "str", "default": "kube-system"},
        "label_selector": {"type": "str", "default": "component=kube-apiserver"},
        "container": {"type": "str", "default": "kube-apiserver"},
        "marker": {"type": "str", "default": "meshfleet.istio"},
    }


def run(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    entries: dict[str, str] = {}
    if params["state"] == "present":
        entries = check_entries(params["hosts"])
        if not entries:
            raise HostsError("hosts: give at least one name and its IP address, or state: absent.")
    check_marker(params["marker"])
    pods = PodHosts(connect(module), params["namespace"], params["label_selector"], params["container"])
    plans = pods.plan(entries, params["marker"])
    changes = [plan for plan in plans if plan["changed"]]
    if not module.check_mode:
        for plan in changes:
            pods.apply(plan)
    return {
        "changed": bool(changes),
        "pods": [{key: plan[key] for key in ("name", "changed", "adopted")} for plan in plans],
        "diff": [
            {
                "before_header": f"{plan['name']}:{HOSTS_FILE}",
                "after_header": f"{plan['name']}:{HOSTS_FILE}",
                "before": plan["before"],
                "after": plan["after"],
            }
            for plan in changes
        ],
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(),
        required_if=[("state", "present", ["hosts"])],
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except MeshError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
