#!/usr/bin/python
# -*- coding: utf-8 -*-

# Copyright: (c) 2026, meshfleet.istio contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The module istio_mesh_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: istio_mesh_info
short_description: Read the state of the mesh from one of its clusters
version_added: 1.0.0
author: meshfleet.istio contributors (@meshfleet)
description:
  - Reads what a cluster is and allows, what istiod on it knows, and which webhooks and credentials of Istio it holds.
  - Changes nothing. Tokens are never returned.
options:
  namespace:
    description: Istio's namespace.
    type: str
    default: istio-system
  revision:
    description: Revision of istiod whose replicas are asked. An empty string asks those of any revision.
    type: str
    default: default
  istioctl_path:
    description: Path of C(istioctl), or its name when it is on the PATH.
    type: path
    default: istioctl
  gather:
    description:
      - What to read.
      - V(cluster) is the API server's version, platform, address ranges and the rights of the credentials.
      - V(istioctl) is the version of C(istioctl) and its profile for managed clusters; no cluster is asked for it.
      - V(remote_clusters) and V(proxies) are asked from each replica of istiod, by C(exec) in its pod. Where no istiod
        runs they are empty.
      - V(webhooks) are those of the sidecar injector.
      - V(credentials) are the remote secrets on this cluster.
    type: list
    elements: str
    choices: [cluster, istioctl, remote_clusters, proxies, webhooks, credentials]
    default: [remote_clusters, proxies, webhooks, credentials]
  query:
    description:
      - JMESPath expression over the returned data, whose outcome is in RV(result).
      - Needs the Python library jmespath.
    type: str
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - meshfleet.istio.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: Changes nothing.
  idempotent:
    support: full
  action_group:
    support: full
requirements:
  - kubernetes
  - jmespath (for O(query) only)
"""

EXAMPLES = r"""
- name: Read the mesh from its hub
  meshfleet.istio.istio_mesh_info:
    context: mcsdemo
  register: mesh

- name: Wait until every proxy of one namespace has its configuration
  meshfleet.istio.istio_mesh_info:
    context: mcsdemo
    gather: [proxies]
    query: "proxies[?namespace == 'bookinfo' && !synced].name"
  register: late
  until: late.result | length == 0
  retries: 10
  delay: 2

- name: Read a cluster before anything is installed on it
  meshfleet.istio.istio_mesh_info:
    context: mcsdemo1
    gather: [cluster, istioctl]
"""

RETURN = r"""
cluster:
  description: What the cluster is and allows.
  returned: when V(cluster) is in O(gather)
  type: dict
  contains:
    name:
      description: Name of the context, else the API server's URL.
      type: str
    server:
      description: URL of the API server.
      type: str
    git_version:
      description: Version of Kubernetes as the API server gives it.
      type: str
    version:
      description: Major and minor version.
      type: str
    platform:
      description:
        - V(openshift) where the API server has C(config.openshift.io) or C(security.openshift.io), else V(kubernetes).
      type: str
    api_groups:
      description: The API groups the server has.
      type: list
      elements: str
    routes:
      description: Whether it has OpenShift's Routes.
      type: bool
    service_exports:
      description: Whether it has the ServiceExports of the multi-cluster Services API.
      type: bool
    service_ranges:
      description: CIDR ranges of Services. Empty when the credentials cannot find out.
      type: list
      elements: str
    pod_ranges:
      description: CIDR ranges of pods, as far as the nodes or OpenShift's network configuration tell.
      type: list
      elements: str
    rights:
      description:
        - Whether the credentials may create C(namespaces), C(customresourcedefinitions), C(clusterroles),
          C(mutatingwebhookconfigurations), and C(secrets) in O(namespace).
      type: dict
  sample:
    name: mcsdemo1
    server: https://api.mcsdemo1.example.com:6443
    git_version: v1.35.4
    version: "1.35"
    platform: kubernetes
    api_groups: [apps, batch]
    routes: false
    service_exports: true
    service_ranges: [172.31.0.0/16]
    pod_ranges: [10.132.0.0/14]
    rights: {clusterroles: true, namespaces: true}
istioctl:
  description: The istioctl at O(istioctl_path).
  returned: when V(istioctl) is in O(gather)
  type: dict
  contains:
    version:
      description: Its version.
      type: str
    managed_profile:
      description: Name of its profile for managed clusters.
      type: str
    path:
      description: O(istioctl_path).
      type: str
  sample: {version: 1.29.1, managed_profile: remote, path: /usr/local/bin/istioctl}
remote_clusters:
  description: The clusters that each replica of istiod reads, its own included.
  returned: when V(remote_clusters) is in O(gather)
  type: list
  elements: dict
  contains:
    replica:
      description: Name of the istiod pod.
      type: str
    id:
      description: Name of the cluster.
      type: str
    secret_name:
      description: Its remote secret, V(namespace/name); empty for istiod's own cluster.
      type: str
    sync_status:
      description: V(synced), V(syncing), V(timeout) or V(closed).
      type: str
  sample:
    - replica: istiod-7d9f8c5b6-x2x4z
      id: mcsdemo1
      secret_name: istio-system/istio-remote-secret-mcsdemo1
      sync_status: synced
proxies:
  description: The proxies that are connected to istiod.
  returned: when V(proxies) is in O(gather)
  type: list
  elements: dict
  contains:
    name:
      description: Name of the pod.
      type: str
    namespace:
      description: Namespace of the pod.
      type: str
    cluster:
      description: Name of the cluster.
      type: str
    istiod:
      description: The istiod pod it is connected to.
      type: str
    version:
      description: Version of the proxy.
      type: str
    synced:
      description: Whether it has acknowledged all that istiod has sent.
      type: bool
    types:
      description: State by type of configuration, as C(istioctl proxy-status) has it.
      type: dict
  sample:
    - name: productpage-v1-6f5b8b7d4-abcde
      namespace: bookinfo
      cluster: mcsdemo1
      istiod: istiod-7d9f8c5b6-x2x4z
      version: 1.29.1
      synced: true
      types: {CDS: SYNCED, LDS: SYNCED, EDS: SYNCED, RDS: SYNCED}
webhooks:
  description: The webhooks of the sidecar injector.
  returned: when V(webhooks) is in O(gather)
  type: list
  elements: dict
  contains:
    configuration:
      description: Name of the MutatingWebhookConfiguration.
      type: str
    name:
      description: Name of the webhook.
      type: str
    revision:
      description: Revision of Istio.
      type: str
    ca_bundle:
      description: Whether it has a CA bundle. Without one the API server cannot call it.
      type: bool
    url:
      description: The URL it is called by; null when it is called by a Service.
      type: str
    service:
      description: The Service it is called by; null when it is called by a URL.
      type: dict
    failure_policy:
      description: V(Fail) or V(Ignore).
      type: str
  sample:
    - configuration: istio-sidecar-injector
      name: namespace.sidecar-injector.istio.io
      revision: default
      ca_bundle: true
      url: null
      service: {name: istiod, namespace: istio-system, path: /inject/cluster/mcsdemo1/net/network1, port: 443}
      failure_policy: Fail
credentials:
  description: The clusters in the remote secrets on this cluster.
  returned: when V(credentials) is in O(gather)
  type: list
  elements: dict
  contains:
    cluster:
      description: Name of the cluster.
      type: str
    secret:
      description: Name of the Secret.
      type: str
    server:
      description: URL of the cluster's API server; null when the Secret does not hold a kubeconfig.
      type: str
    expires:
      description: When the token expires; null when it does not.
      type: str
  sample:
    - cluster: mcsdemo1
      secret: istio-remote-secret-mcsdemo1
      server: https://api.mcsdemo1.example.com:6443
      expires: null
result:
  description: Outcome of O(query).
  returned: when O(query) is given
  type: raw
  sample: []
"""

import traceback
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.meshfleet.istio.plugins.module_utils._cluster_facts import cluster_facts, webhooks
from ansible_collections.meshfleet.istio.plugins.module_utils._errors import MeshError
from ansible_collections.meshfleet.istio.plugins.module_utils._istioctl import Istioctl
from ansible_collections.meshfleet.istio.plugins.module_utils._istiod import Istiod
from ansible_collections.meshfleet.istio.plugins.module_utils._kube import AUTH_OPTIONS, connect
from ansible_collections.meshfleet.istio.plugins.module_utils._remote_secret import credentials_on

try:
    import jmespath

    JMESPATH_ERROR: str | None = None
except ImportError:
    JMESPATH_ERROR = traceback.format_exc()

ON_CLUSTER = ["cluster", "remote_clusters", "proxies", "webhooks", "credentials"]


def argument_spec() -> dict[str, Any]:
    return {
        **AUTH_OPTIONS,
        "namespace": {"type": "str", "default": "istio-system"},
        "revision": {"type": "str", "default": "default"},
        "istioctl_path": {"type": "path", "default": "istioctl"},
        "gather": {
            "type": "list",
            "elements": "str",
            "choices": ["cluster", "istioctl", "remote_clusters", "proxies", "webhooks", "credentials"],
            "default": ["remote_clusters", "proxies", "webhooks", "credentials"],
        },
        "query": {"type": "str"},
    }


def compile_query(module: AnsibleModule) -> Any:
    """The compiled query, None without one; fails before any cluster is asked."""
    query = module.params["query"]
    if not query:
        return None
    if JMESPATH_ERROR is not None:
        module.fail_json(msg=f"query: {missing_required_lib('jmespath')}", exception=JMESPATH_ERROR)
    try:
        return jmespath.compile(query)
    except jmespath.exceptions.JMESPathError as error:
        raise MeshError(f"query: {query!r} is not a JMESPath expression: {error}") from error


def gather(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    namespace = params["namespace"]
    data: dict[str, Any] = {}
    if "istioctl" in params["gather"]:
        istioctl = Istioctl(module.run_command, params["istioctl_path"])
        data["istioctl"] = {
            "version": istioctl.version(),
            "managed_profile": istioctl.managed_profile,
            "path": istioctl.path,
        }
    if not set(ON_CLUSTER) & set(params["gather"]):
        return data
    cluster = connect(module)
    istiod = Istiod(cluster, namespace, params["revision"])
    readers: dict[str, Callable[[], Any]] = {
        "cluster": lambda: cluster_facts(cluster, namespace),
        "remote_clusters": istiod.remote_clusters,
        "proxies": istiod.proxies,
        "webhooks": lambda: webhooks(cluster),
        "credentials": lambda: credentials_on(cluster, namespace),
    }
    for name in ON_CLUSTER:
        if name in params["gather"]:
            data[name] = readers[name]()
    return data


def main() -> None:
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    try:
        query = compile_query(module)
        data = gather(module)
        if query is not None:
            try:
                data["result"] = query.search(data)
            except jmespath.exceptions.JMESPathError as error:
                raise MeshError(f"query: {module.params['query']!r} does not fit the data: {error}") from error
        module.exit_json(changed=False, **data)
    except MeshError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
