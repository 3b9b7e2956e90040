#!/usr/bin/python
# -*- coding: utf-8 -*-

# Copyright: (c) 2026, meshfleet.istio contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The module http_probe_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: http_probe_info
short_description: Count what repeated HTTP requests are answered with
version_added: 1.0.0
author: meshfleet.istio contributors (@meshfleet)
description:
  - Sends GET requests to a URL, each on a connection of its own, and counts the answers and a value in them; so it sees
    which versions of a service behind a mesh answer.
  - A good answer has the status 200, the wanted O(title) and O(contains), and with O(only) a value of O(expect).
  - Stops as soon as the answers are as wanted, and fails when they are not within O(max_requests) good answers or
    O(wait_timeout) seconds. Other answers are repeated until then, since a mesh takes a moment to settle.
options:
  url:
    description: URL to request, V(http) or V(https).
    type: str
    required: true
  headers:
    description: Headers of the requests, for example V(Host).
    type: dict
    default: {}
  validate_certs:
    description: Whether to verify the server's certificate.
    type: bool
    default: true
  use_proxy:
    description: Whether to use a proxy that the environment variables name.
    type: bool
    default: false
  title:
    description: Title that each page must have (the text of its HTML C(title) element).
    type: str
  contains:
    description: Texts that each answer must contain.
    type: list
    elements: str
    default: []
  pattern:
    description:
      - Regular expression with one group. The group's value in its first match is counted.
    type: str
  expect:
    description:
      - Values that must all be seen. Needs O(pattern).
      - Without it, O(min_requests) good answers in a row are wanted.
    type: list
    elements: str
    default: []
  only:
    description: Whether no other value than those of O(expect) may be seen in O(min_requests) answers in a row.
    type: bool
    default: false
  min_requests:
    description: Good answers in a row that are needed with O(only) or without O(expect).
    type: int
    default: 10
  max_requests:
    description: Good answers after which to give up.
    type: int
    default: 60
  timeout:
    description: Seconds for one request.
    type: int
    default: 5
  wait_timeout:
    description: Seconds for all requests together.
    type: int
    default: 60
extends_documentation_fragment:
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
    support: none
    details: Asks no cluster.
"""

EXAMPLES = r"""
- name: See all three versions of reviews
  meshfleet.istio.http_probe_info:
    url: http://172.30.0.20/productpage
    title: Simple Bookstore App
    pattern: 'reviews-(v\d)-'
    expect: [v1, v2, v3]

- name: See version 1 of reviews and no other, 20 times in a row
  meshfleet.istio.http_probe_info:
    url: http://172.30.0.20/productpage
    headers:
      Host: bookinfo.example.com
    pattern: 'reviews-(v\d)-'
    expect: [v1]
    only: true
    min_requests: 20
"""

RETURN = r"""
requests:
  description: Number of requests sent.
  returned: always
  type: int
  sample: 12
status:
  description: Number of answers by status; V(error) where there was no answer.
  returned: always
  type: dict
  sample: {"200": 11, "503": 1}
matches:
  description: Number of answers with status 200 by the value that O(pattern) captured.
  returned: always
  type: dict
  sample: {v1: 4, v2: 5, v3: 2}
unmatched:
  description: Number of answers with status 200 that O(pattern) did not match.
  returned: always
  type: int
  sample: 0
first_error:
  description: What was wrong with the first answer that was not good; null when all were.
  returned: always
  type: str
  sample: "status 503: upstream connect error"
"""

from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import ConnectionError as UrlsError
from ansible.module_utils.urls import open_url
from ansible_collections.meshfleet.istio.plugins.module_utils._errors import MeshError
from ansible_collections.meshfleet.istio.plugins.module_utils._probe import Probe, ProbeError, compile_pattern

# Bytes of an answer that are looked at.
MAX_BODY = 4 * 1024 * 1024


def argument_spec() -> dict[str, Any]:
    return {
        "url": {"type": "str", "required": True},
        "headers": {"type": "dict", "default": {}},
        "validate_certs": {"type": "bool", "default": True},
        "use_proxy": {"type": "bool", "default": False},
        "title": {"type": "str"},
        "contains": {"type": "list", "elements": "str", "default": []},
        "pattern": {"type": "str"},
        "expect": {"type": "list", "elements": "str", "default": []},
        "only": {"type": "bool", "default": False},
        "min_requests": {"type": "int", "default": 10},
        "max_requests": {"type": "int", "default": 60},
        "timeout": {"type": "int", "default": 5},
        "wait_timeout": {"type": "int", "default": 60},
    }


def check(params: dict[str, Any]) -> None:
    """Raises ProbeError for options that cannot be met."""
    parts = urlsplit(params["url"])
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ProbeError(f"url: {params['url']!r} is not an http or https URL.")
    if params["expect"] and not params["pattern"]:
        raise ProbeError("expect: needs the option pattern, whose group captures the values.")
    if params["only"] and not params["expect"]:
        raise ProbeError("only: needs the option expect, the values that are allowed.")
    for name in ("min_requests", "timeout", "wait_timeout"):
        if params[name] < 1:
            raise ProbeError(f"{name}: {params[name]} is less than 1.")
    if params["max_requests"] < params["min_requests"]:
        raise ProbeError(f"max_requests: {params['max_requests']} is less than min_requests, {params['min_requests']}.")


def get(params: dict[str, Any]) -> tuple[int, str]:
    """One request: status and body. Raises OSError when there is no answer."""
    try:
        response = open_url(
            params["url"],
            headers={str(name): str(value) for name, value in params["headers"].items()},
            timeout=params["timeout"],
            validate_certs=params["validate_certs"],
            use_proxy=params["use_proxy"],
            force=True,
            follow_redirects="safe",
        )
    except HTTPError as error:
        response = error
    except (HTTPException, UrlsError) as error:
        raise OSError(f"no HTTP answer: {error!r}") from error
    try:
        with response:
            return int(response.code), response.read(MAX_BODY).decode("utf-8", "replace")
    except HTTPException as error:
        raise OSError(f"the answer ended early: {error!r}") from error


def main() -> None:
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    params = module.params
    try:
        check(params)
        probe = Probe(
            lambda: get(params),
            compile_pattern(params["pattern"]),
            params["expect"],
            params["only"],
            params["title"],
            params["contains"],
        )
        met = probe.run(params["min_requests"], params["max_requests"], params["wait_timeout"])
    except MeshError as error:
        module.fail_json(msg=str(error))
    if not met:
        module.fail_json(msg=f"{params['url']}: {probe.shortfall(params['min_requests'])}.", **probe.result())
    module.exit_json(changed=False, **probe.result())


if __name__ == "__main__":
    main()
