"""Tests of the filter overlapping_ranges."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.meshfleet.istio.plugins.filter.overlapping_ranges import FilterModule

overlapping_ranges = FilterModule().filters()["overlapping_ranges"]


@pytest.mark.parametrize(
    "ranges",
    [
        {},
        {"a": []},
        {"a": ["10.0.0.0/8", "10.1.0.0/16"]},
        {"a": ["10.0.0.0/16"], "b": ["10.1.0.0/16"]},
        {"a": ["0.0.0.0/0"], "b": ["::/0"]},
    ],
)
def test_no_overlap(ranges: dict[str, Any]) -> None:
    assert overlapping_ranges(ranges) == []


def test_overlaps() -> None:
    ranges = {"a": ["10.0.0.0/8"], "b": ["192.168.0.0/16", "10.1.0.0/16"], "c": ["10.1.2.3/24"]}
    assert overlapping_ranges(ranges) == [
        {"a": "a", "b": "b", "range_a": "10.0.0.0/8", "range_b": "10.1.0.0/16"},
        {"a": "a", "b": "c", "range_a": "10.0.0.0/8", "range_b": "10.1.2.3/24"},
        {"a": "b", "b": "c", "range_a": "10.1.0.0/16", "range_b": "10.1.2.3/24"},
    ]


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ([], "wants a dictionary"),
        ({"a": "10.0.0.0/8"}, "a wants a list"),
        ({"a": None}, "a wants a list"),
        ({"a": ["10.0.0.0/33"]}, r"'10\.0\.0\.0/33' of a is no CIDR range"),
    ],
)
def test_bad_input(ranges: Any, message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        overlapping_ranges(ranges)
