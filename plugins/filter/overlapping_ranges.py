# Copyright: (c) 2026, meshfleet.istio contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The filter overlapping_ranges; documented in overlapping_ranges.yml."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Callable

from ansible.errors import AnsibleFilterError


def overlapping_ranges(ranges: Any) -> list[dict[str, str]]:
    """Every pair of overlapping CIDR ranges that belong to different names; see overlapping_ranges.yml."""
    if not isinstance(ranges, Mapping):
        raise AnsibleFilterError(
            f"overlapping_ranges wants a dictionary of names and lists of CIDR ranges, not {ranges!r}."
        )
    networks = []
    for name, cidrs in ranges.items():
        if isinstance(cidrs, str) or not isinstance(cidrs, Sequence):
            raise AnsibleFilterError(f"overlapping_ranges: {name} wants a list of CIDR ranges, not {cidrs!r}.")
        for cidr in cidrs:
            try:
                networks.append((str(name), str(cidr), ipaddress.ip_network(str(cidr), strict=False)))
            except ValueError as error:
                raise AnsibleFilterError(
                    f"overlapping_ranges: {cidr!r} of {name} is no CIDR range: {error}."
                ) from error
    return [
        {"a": a, "b": b, "range_a": range_a, "range_b": range_b}
        for (a, range_a, network_a), (b, range_b, network_b) in combinations(networks, 2)
        if a != b and network_a.version == network_b.version and network_a.overlaps(network_b)
    ]


class FilterModule:
    """Ansible's entry to the filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"overlapping_ranges": overlapping_ranges}
