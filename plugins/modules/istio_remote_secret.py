#!/usr/bin/python
# -*- coding: utf-8 -*-

# Copyright: (c) 2026, meshfleet.istio contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The module istio_remote_secret."""

from __future__ import annotations

DOCUMENTATION = r"""
module: istio_remote_secret
short_description: Keep a managed cluster's remote secret on the hub
version_added: 1.0.0
author: meshfleet.istio contributors (@meshfleet)
description:
  - Gives istiod on the hub a credential for a managed cluster, in the form that C(istioctl create-remote-secret) gives
    it, so that istiod reads that cluster's Services and pods; or takes it away.
  - The authentication options lead to the managed cluster, O(hub) leads to the hub.
  - The token is a long-lived one, in a Secret of type V(kubernetes.io/service-account-token) on the managed cluster,
    named V(<service_account>-istio-remote-secret-token). It lives as long as that Secret and the ServiceAccount.
  - A remote secret that works is left as it is, because a change in place makes istiod 1.29 stop reading that cluster
    (it then shows V(closed)) until istiod is restarted. It works when its token is one of the ServiceAccount's own and
    its API server and CA are the wanted ones.
  - The CA in the remote secret is the ServiceAccount's C(ca.crt). Certificates of the kubeconfig's CA that are not in
    it are added, because an API server with a certificate of its own issuer is verified by those only.
options:
  state:
    description:
      - V(present) brings the credential to the hub.
      - V(absent) deletes it from the hub, then revokes the token by deleting its Secret on the managed cluster.
    type: str
    choices: [present, absent]
    default: present
  cluster_name:
    description:
      - Name of the managed cluster in the mesh, a DNS-1123 label. It is the key in the remote secret.
      - Must be the name that the cluster's proxies use (C(values.global.multiCluster.clusterName)).
    type: str
    required: true
  namespace:
    description: Namespace of istiod on the hub, and of the ServiceAccount on the managed cluster.
    type: str
    default: istio-system
  service_account:
    description: ServiceAccount on the managed cluster that istiod acts as there.
    type: str
    default: istio-reader-service-account
  server:
    description:
      - URL of the managed cluster's API server as pods on the hub reach it. Defaults to the URL in the kubeconfig.
      - Required where that URL is a loopback address.
    type: str
  wait:
    description:
      - Whether to wait until every istiod replica on the hub shows the cluster as V(synced).
      - Where no istiod runs on the hub, there is a warning instead.
    type: bool
    default: true
  wait_timeout:
    description: Seconds to wait.
    type: int
    default: 60
  managed_unreachable:
    description:
      - What to do with O(state=absent) when the managed cluster cannot be reached.
      - V(fail) changes nothing, V(ignore) deletes the remote secret from the hub and warns that the token lives on.
    type: str
    choices: [fail, ignore]
    default: fail
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - meshfleet.istio.hub_auth_options
  - meshfleet.istio.attributes
attributes:
  check_mode:
    support: full
    details: Writes to neither cluster. A ServiceAccount or namespace that is not there yet counts as planned.
  diff_mode:
    support: full
    details: Tokens are masked, CA certificates are shown as a digest.
  idempotent:
    support: full
  action_group:
    support: full
requirements:
  - kubernetes
  - PyYAML
seealso:
  - module: meshfleet.istio.istio_operator
  - module: meshfleet.istio.istio_mesh_info
  - name: Install Multicluster
    description: Istio's own description of remote secrets.
    link: https://istio.io/latest/docs/setup/install/multicluster/
"""

EXAMPLES = r"""
- name: Let the hub's istiod read a managed cluster
  meshfleet.istio.istio_remote_secret:
    context: mcsdemo1
    hub:
      context: mcsdemo
    cluster_name: mcsdemo1

- name: The same for an API server whose kubeconfig has a loopback address
  meshfleet.istio.istio_remote_secret:
    context: kind-mcsdemo1
    hub:
      context: kind-mcsdemo
    cluster_name: mcsdemo1
    server: https://172.18.0.3:6443

- name: Take a cluster out of the mesh that is gone already
  meshfleet.istio.istio_remote_secret:
    context: mcsdemo2
    hub:
      context: mcsdemo
    cluster_name: mcsdemo2
    state: absent
    managed_unreachable: ignore
"""

RETURN = r"""
cluster_name:
  description: Name of the managed cluster in the mesh.
  returned: success
  type: str
  sample: mcsdemo1
secret:
  description: The remote secret on the hub, V(namespace/name).
  returned: success
  type: str
  sample: istio-system/istio-remote-secret-mcsdemo1
server:
  description: URL of the managed cluster's API server in the remote secret.
  returned: O(state=present)
  type: str
  sample: https://api.mcsdemo1.example.com:6443
sync:
  description: What each istiod replica shows for the cluster; empty when there was no wait.
  returned: O(state=present)
  type: list
  elements: dict
  contains:
    replica:
      description: Name of the istiod pod.
      type: str
    sync_status:
      description: Istiod's word for it.
      type: str
  sample: [{replica: istiod-7d9f8c5b6-x2x4z, sync_status: synced}]
restart_required:
  description:
    - Whether istiod has stopped reading the cluster and needs a rolling restart.
    - A warning says so, too.
  returned: O(state=present)
  type: bool
  sample: false
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.meshfleet.istio.plugins.module_utils._errors import MeshError
from ansible_collections.meshfleet.istio.plugins.module_utils._istiod import ClosedError, Istiod
from ansible_collections.meshfleet.istio.plugins.module_utils._kube import AUTH_OPTIONS, Cluster, ClusterError, connect
from ansible_collections.meshfleet.istio.plugins.module_utils._remote_secret import RemoteSecret, check_cluster_name


def argument_spec() -> dict[str, Any]:
    return {
        **AUTH_OPTIONS,
        "hub": {"type": "dict", "required": True, "options": AUTH_OPTIONS},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "cluster_name": {"type": "str", "required": True},
        "namespace": {"type": "str", "default": "istio-system"},
        "service_account": {"type": "str", "default": "istio-reader-service-account"},
        "server": {"type": "str"},
        "wait": {"type": "bool", "default": True},
        "wait_timeout": {"type": "int", "default": 60},
        "managed_unreachable": {"type": "str", "choices": ["fail", "ignore"], "default": "fail"},
    }


def connect_hub(module: AnsibleModule) -> Cluster:
    """The hub, looked up in the managed cluster's kubeconfig when it has none of its own."""
    hub = dict(module.params["hub"])
    if not hub.get("kubeconfig") and not hub.get("host"):
        hub["kubeconfig"] = module.params["kubeconfig"]
    return connect(module, hub, "hub.context")


def connect_managed(module: AnsibleModule) -> Cluster | None:
    """The managed cluster; None when it cannot be reached and that is to be ignored."""
    try:
        return connect(module)
    except ClusterError:
        if module.params["state"] == "absent" and module.params["managed_unreachable"] == "ignore":
            return None
        raise


def wait_synced(module: AnsibleModule, hub: Cluster) -> tuple[list[dict[str, Any]], bool]:
    """What istiod shows for the cluster, and whether istiod needs a restart."""
    # Of any revision: each istiod in the namespace reads the same Secrets.
    istiod = Istiod(hub, module.params["namespace"], revision="")
    name = module.params["cluster_name"]
    if not istiod.replicas():
        module.warn(
            f"No istiod runs in namespace {module.params['namespace']} of the hub {hub.name}: nothing reads the remote"
            f" secret of {name} yet."
        )
        return [], False
    try:
        return istiod.wait_synced(name, module.params["wait_timeout"]), False
    except ClosedError as error:
        module.warn(str(error))
        return [entry for entry in istiod.remote_clusters() if entry["id"] == name], True


def run(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    check_cluster_name(params["cluster_name"])
    hub = connect_hub(module)
    managed = connect_managed(module)
    secret = RemoteSecret(
        hub,
        params["cluster_name"],
        params["namespace"],
        params["service_account"],
        check_mode=module.check_mode,
        hide=module.no_log_values.add,
    )
    if params["state"] == "absent" or managed is None:
        outcome = secret.absent(managed)
    else:
        outcome = secret.present(managed, params["server"])
    for warning in secret.warnings:
        module.warn(warning)
    result = {
        "changed": outcome["changed"],
        "cluster_name": params["cluster_name"],
        "secret": f"{params['namespace']}/{secret.name}",
        "diff": outcome["diff"],
    }
    if params["state"] == "present":
        sync: list[dict[str, Any]] = []
        restart = False
        if params["wait"] and not (module.check_mode and outcome["changed"]):
            sync, restart = wait_synced(module, hub)
        elif outcome["updated"]:
            module.warn(
                f"The remote secret of {params['cluster_name']} is replaced in place: where istiod then shows the"
                " cluster as closed (istioctl remote-clusters), restart istiod."
            )
        result.update(
            server=outcome["server"],
            sync=[{key: entry[key] for key in ("replica", "sync_status")} for entry in sync],
            restart_required=restart,
        )
    return result


def main() -> None:
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    try:
        module.exit_json(**run(module))
    except MeshError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
