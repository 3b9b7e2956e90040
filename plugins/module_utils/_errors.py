# Copyright: (c) 2026, meshfleet.istio contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""The error family of the collection. Internal use only."""

from __future__ import annotations


class MeshError(Exception):
    """Base of all errors of this collection; ``str(error)`` is complete for the user, remedy included."""
