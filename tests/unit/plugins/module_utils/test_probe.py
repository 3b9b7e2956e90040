"""Tests of Probe over given answers."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.meshfleet.istio.plugins.module_utils._probe import Probe, ProbeError, compile_pattern


class Server:
    """Gives its answers one after the other, then from the start; a second passes with each."""

    def __init__(self, *answers: Any) -> None:
        self.answers = [(200, answer) if isinstance(answer, str) else answer for answer in answers]
        self.now = 0.0

    def __call__(self) -> tuple[int, str]:
        answer = self.answers[int(self.now) % len(self.answers)]
        self.now += 1
        if isinstance(answer, Exception):
            raise answer
        return answer


def probe(server: Server, **options: Any) -> Probe:
    pattern = compile_pattern(options.pop("pattern", None))
    return Probe(server, pattern, **options, sleep=lambda _seconds: None, clock=lambda: server.now)


@pytest.mark.parametrize(
    ("pattern", "message"), [("(", "not a regular expression"), ("a", "has 0 groups"), ("(a)(b)", "has 2 groups")]
)
def test_bad_pattern(pattern: str, message: str) -> None:
    with pytest.raises(ProbeError, match=message):
        compile_pattern(pattern)


def test_without_expect_good_answers_in_a_row() -> None:
    subject = probe(Server("a", (503, "no"), "b", "c", "d"))
    assert subject.run(3, 60, 100)
    assert subject.result() == {
        "requests": 5,
        "status": {"200": 4, "503": 1},
        "matches": {},
        "unmatched": 0,
        "first_error": "status 503: no",
    }


def test_expect_stops_early() -> None:
    subject = probe(Server("<v1>", "<v2>", "none", "<v3>"), pattern="<(v.)>", expect=["v1", "v3"])
    assert subject.run(10, 60, 100)
    assert (subject.requests, subject.matches, subject.unmatched) == (4, {"v1": 1, "v2": 1, "v3": 1}, 1)


def test_expect_not_seen_within_the_limit() -> None:
    subject = probe(Server("<v1>"), pattern="<(v.)>", expect=["v1", "v2"])
    assert not subject.run(1, 5, 100)
    assert subject.requests == 5
    assert subject.shortfall(1) == "5 requests gave 5 x 200; values seen: v1: 5; missing: v2"


def test_only_begins_anew_after_another_value() -> None:
    subject = probe(Server("<v2>", "<v1>", "", "<v1>", "<v1>", "<v1>"), pattern="<(v.)>", expect=["v1"], only=True)
    assert subject.run(3, 60, 100)
    assert subject.requests == 6
    assert subject.first_error == "answer with v2"


def test_only_never_met() -> None:
    subject = probe(Server("<v1>", "<v2>"), pattern="<(v.)>", expect=["v1"], only=True)
    assert not subject.run(3, 60, 20)
    assert "wanted 3 good answers in a row with only v1" in subject.shortfall(3)
    assert "first error: answer with v2" in subject.shortfall(3)


def test_no_answer_is_repeated_until_the_time_is_over() -> None:
    subject = probe(Server(OSError("refused")))
    assert not subject.run(1, 5, 8)
    assert subject.result()["status"] == {"error": 8}
    assert "8 x error" in subject.shortfall(1)
    assert "last error: no answer: refused" in subject.shortfall(1)


@pytest.mark.parametrize(
    ("body", "options", "error"),
    [
        ("<Title >Simple\n Book&amp;Store</title>", {"title": "Simple Book&Store"}, None),
        ("<title>Other</title>", {"title": "App"}, "the page's title is 'Other', not 'App'"),
        ("nothing", {"title": "App"}, "the page's title is None, not 'App'"),
        ("a b", {"contains": ["a", "b"]}, None),
        ("a b", {"contains": ["a", "c"]}, "the answer does not contain 'c'"),
    ],
)
def test_texts(body: str, options: dict[str, Any], error: str | None) -> None:
    subject = probe(Server(body), **options)
    assert subject.run(1, 1, 1) is (error is None)
    assert subject.first_error == error
