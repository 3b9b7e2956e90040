"""Lets tests import this checkout as ansible_collections.meshfleet.istio, and kubernetes.core beside it."""

from __future__ import annotations

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))
from lab.host import CACHE  # noqa: E402

sys.path[:0] = [str(CHECKOUT / "collections"), str(CACHE / "collections")]
