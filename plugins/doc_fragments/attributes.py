# Copyright: (c) 2026, meshfleet.istio contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What the modules of this collection support, in the words of Ansible's attributes."""

from __future__ import annotations


class ModuleDocFragment:
    """Document each attribute; a module says how far it supports it."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and says what would change without changing anything.
  diff_mode:
    description: Returns what has changed, or would change in C(check_mode), when in diff mode.
  idempotent:
    description: A second run with the same arguments changes nothing.
  action_group:
    description: Use C(group/meshfleet.istio.mesh) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - meshfleet.istio.mesh
"""
