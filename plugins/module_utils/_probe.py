# Copyright: (c) 2026, meshfleet.istio contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Repeated GET requests until the answers are as wanted. Internal use only."""

from __future__ import annotations

import html
import re
import time
from collections import Counter
from typing import Any, Callable

from ansible_collections.meshfleet.istio.plugins.module_utils._errors import MeshError

# Seconds before the next request after an answer that is not as wanted: a mesh takes a moment to settle.
PAUSE = 0.5
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)

# One GET: status and body. Raises OSError when there was no answer.
Get = Callable[[], "tuple[int, str]"]


class ProbeError(MeshError):
    """The options contradict each other."""


def compile_pattern(pattern: str | None) -> re.Pattern[str] | None:
    """Raises ProbeError unless the pattern is a regular expression with one group."""
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ProbeError(f"pattern: {pattern!r} is not a regular expression: {error}.") from error
    if compiled.groups != 1:
        raise ProbeError(f"pattern: {pattern!r} has {compiled.groups} groups. Give it one, around the value to count.")
    return compiled


class Probe:
    """One series of requests. A good answer is a 200 with the wanted title, texts and, with ``only``, a wanted value.

    Values count over the good answers; with ``only``, over those since the last answer that was not good.
    """

    def __init__(
        self,
        get: Get,
        pattern: re.Pattern[str] | None = None,
        expect: list[str] | None = None,
        only: bool = False,
        title: str | None = None,
        contains: list[str] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.requests = 0
        self.status: Counter[str] = Counter()
        self.matches: Counter[str] = Counter()
        self.unmatched = 0
        self.first_error: str | None = None
        self.last_error: str | None = None
        self._get = get
        self._pattern = pattern
        self._expect = set(expect or [])
        self._only = only
        self._title = title
        self._contains = contains or []
        self._sleep = sleep
        self._clock = clock
        self._streak = 0
        self._seen: set[str] = set()

    def run(self, min_requests: int, max_requests: int, wait_timeout: float) -> bool:
        """Send requests until the answers are as wanted (True) or a limit is reached (False).

        Wanted: every value of ``expect`` seen, and with ``only`` or without ``expect``, ``min_requests`` good answers
        in a row. Good answers count towards ``max_requests``; others are repeated until ``wait_timeout`` seconds are
        over.
        """
        deadline = self._clock() + wait_timeout
        good = 0
        while good < max_requests:
            problem = self._request()
            if problem is None:
                good += 1
                self._streak += 1
                if self._is_met(min_requests):
                    return True
            else:
                self.first_error = self.first_error or problem
                self.last_error = problem
                self._streak = 0
                if self._only:
                    self._seen.clear()
                self._sleep(PAUSE)
            if self._clock() >= deadline:
                break
        return False

    def result(self) -> dict[str, Any]:
        """The counts, as the module returns them."""
        return {
            "requests": self.requests,
            "status": dict(sorted(self.status.items())),
            "matches": dict(sorted(self.matches.items())),
            "unmatched": self.unmatched,
            "first_error": self.first_error,
        }

    def shortfall(self, min_requests: int) -> str:
        """What was seen and what was missing, in words."""
        seen = ", ".join(f"{count} x {status}" for status, count in sorted(self.status.items())) or "no answer"
        parts = [f"{self.requests} requests gave {seen}"]
        if self._pattern is not None:
            values = ", ".join(f"{value}: {count}" for value, count in sorted(self.matches.items())) or "none"
            parts.append(f"values seen: {values}")
            if self.unmatched:
                parts.append(f"{self.unmatched} answers without a value")
        missing = sorted(self._expect - self._seen)
        if missing:
            parts.append(f"missing: {', '.join(missing)}")
        if not self._expect or self._only:
            wanted = f" with only {', '.join(sorted(self._expect))}" if self._only else ""
            parts.append(f"wanted {min_requests} good answers in a row{wanted}, the last {self._streak} were")
        if self.last_error:
            parts.append(f"first error: {self.first_error}")
            parts.append(f"last error: {self.last_error}")
        return "; ".join(parts)

    def _is_met(self, min_requests: int) -> bool:
        if not self._expect <= self._seen:
            return False
        return self._streak >= min_requests if self._only or not self._expect else True

    def _request(self) -> str | None:
        """One request; what is wrong with its answer, None when it is good."""
        self.requests += 1
        try:
            status, body = self._get()
        except OSError as error:
            self.status["error"] += 1
            return f"no answer: {error}"
        self.status[str(status)] += 1
        if status != 200:
            return f"status {status}: {body.strip()[:200]}"
        problem = self._wrong_text(body)
        match = self._pattern.search(body) if self._pattern else None
        value = match.group(1) if match else None
        if value is not None:
            self.matches[value] += 1
        elif self._pattern is not None:
            self.unmatched += 1
        if problem is None and self._only and value not in self._expect:
            problem = f"answer with {value}" if value is not None else "answer without a value"
        if problem is None and value is not None:
            self._seen.add(value)
        return problem

    def _wrong_text(self, body: str) -> str | None:
        if self._title is not None:
            found = _TITLE.search(body)
            title = html.unescape(" ".join(found.group(1).split())) if found else None
            if title != self._title:
                return f"the page's title is {title!r}, not {self._title!r}"
        missing = [text for text in self._contains if text not in body]
        return f"the answer does not contain {missing[0]!r}" if missing else None
