# Copyright: (c) 2026, meshfleet.istio contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The option hub: the way to the hub, for modules whose own options lead to a managed cluster."""

from __future__ import annotations


class ModuleDocFragment:
    """kubernetes.core's authentication options once more, as suboptions."""

    DOCUMENTATION = r"""
options:
  hub:
    description:
      - The hub cluster, given by the same authentication options as the managed cluster's.
      - Without O(hub.kubeconfig) and O(hub.host), the hub is looked up in O(kubeconfig), so that O(hub.context) is
        enough where one kubeconfig has the contexts of both.
    type: dict
    required: true
    suboptions:
      kubeconfig:
        description: Path of a kubeconfig, or the kubeconfig as a dictionary. Defaults to O(kubeconfig).
        type: raw
      context:
        description: Name of the context in the kubeconfig.
        type: str
      host:
        description: URL of the API server.
        type: str
      api_key:
        description: Token to authenticate with.
        type: str
      username:
        description: User name for basic authentication.
        type: str
      password:
        description: Password for basic authentication.
        type: str
      validate_certs:
        description: Whether to verify the API server's certificate.
        type: bool
        aliases: [verify_ssl]
      ca_cert:
        description: Path of the CA certificates that the API server's certificate is verified with.
        type: path
        aliases: [ssl_ca_cert]
      client_cert:
        description: Path of a client certificate.
        type: path
        aliases: [cert_file]
      client_key:
        description: Path of the client certificate's key.
        type: path
        aliases: [key_file]
      proxy:
        description: URL of an HTTP proxy.
        type: str
      no_proxy:
        description: Hosts, domains and CIDR ranges that are reached without the proxy, comma separated.
        type: str
      proxy_headers:
        description: Headers for the proxy.
        type: dict
        suboptions:
          proxy_basic_auth:
            description: Credentials for the proxy, V(user:password).
            type: str
          basic_auth:
            description: Credentials for basic authentication, V(user:password).
            type: str
          user_agent:
            description: Value of the header User-Agent.
            type: str
      persist_config:
        description: Whether to write renewed tokens back to the kubeconfig.
        type: bool
      impersonate_user:
        description: User to impersonate.
        type: str
      impersonate_groups:
        description: Groups to impersonate.
        type: list
        elements: str
"""
