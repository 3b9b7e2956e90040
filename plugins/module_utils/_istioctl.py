# Copyright: (c) 2026, meshfleet.istio contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""istioctl, as far as it renders. Internal use only."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from ansible_collections.meshfleet.istio.plugins.module_utils._errors import MeshError

RunCommand = Callable[..., "tuple[int, str, str]"]

# MinK8SVersion in istioctl/pkg/install/k8sversion/version.go, by Istio's minor version, where it was read. A version in
# between has at least the minimum of the one before it.
_MINIMUM_KUBERNETES = {(1, 11): (1, 17), (1, 29): (1, 30), (1, 31): (1, 32)}


class IstioctlError(MeshError):
    """istioctl is missing, refused its input, or is not the version that was asked for.

    ``rc``, ``stdout``, ``stderr`` and ``cmd`` are those of the call; rc is None when nothing could be run.
    """

    def __init__(
        self, message: str, rc: int | None = None, stdout: str = "", stderr: str = "", cmd: list[str] | None = None
    ) -> None:
        super().__init__(message)
        self.rc = rc
        self.stdout = stdout
        self.stderr = stderr
        self.cmd = cmd or []


class Istioctl:
    """One istioctl binary.

    ``run_command``: AnsibleModule.run_command or what behaves like it. ``path``: a path, or a name to find in PATH.
    ``warnings`` holds what istioctl wrote to standard error while it succeeded.
    """

    def __init__(self, run_command: RunCommand, path: str = "istioctl") -> None:
        self._run_command = run_command
        self.path = path
        self.warnings: list[str] = []
        self._version = ""

    def version(self) -> str:
        """Its own version, for example ``1.29.1``; asked once, without a cluster."""
        if not self._version:
            output = self._run(["version", "--remote=false", "-o", "json"])
            try:
                self._version = str(json.loads(output)["clientVersion"]["version"])
            except (ValueError, KeyError, TypeError):
                raise IstioctlError(
                    f"{self.path} does not answer like istioctl (to version -o json). Set istioctl_path to an istioctl."
                ) from None
        return self._version

    def require_version(self, wanted: str) -> None:
        """Raise IstioctlError unless it is exactly this version."""
        if self.version() != wanted:
            raise IstioctlError(
                f"{self.path} is istioctl {self.version()}, but istio_version asks for {wanted}. Set istioctl_path to"
                f" an istioctl of version {wanted}, or istio_version to {self.version()}."
            )

    @property
    def minor(self) -> tuple[int, int] | None:
        """(1, 29) of ``1.29.1``; None when the version has no number, as a build from source may have."""
        match = re.match(r"v?(\d+)\.(\d+)", self.version())
        return (int(match.group(1)), int(match.group(2))) if match else None

    @property
    def managed_profile(self) -> str:
        """The profile of a cluster whose control plane runs elsewhere: ``external`` up to 1.21, ``remote`` since."""
        minor = self.minor
        return "external" if minor is not None and minor < (1, 22) else "remote"

    @property
    def minimum_kubernetes(self) -> tuple[int, int] | None:
        """The oldest Kubernetes that this Istio supports; None when that is not known."""
        minor = self.minor
        known = [needs for since, needs in sorted(_MINIMUM_KUBERNETES.items()) if minor is not None and since <= minor]
        return known[-1] if known else None

    def check_profile(self, profile: Any) -> None:
        """Raise IstioctlError for the profile that this version calls by another name."""
        if profile == "external" and self.managed_profile == "remote":
            raise IstioctlError(
                f"The profile external (option spec.profile) does not exist in Istio {self.version()}; since 1.22 it is"
                " called remote."
            )

    def manifest_generate(self, operator: dict[str, Any]) -> str:
        """The YAML documents that this IstioOperator renders to, without a look at any cluster.

        Raises IstioctlError with istioctl's own reason when it refuses the operator.
        """
        # JSON is YAML; on standard input nothing of it reaches a process list or a file.
        return self._run(["manifest", "generate", "-f", "-"], json.dumps(operator))

    def _run(self, arguments: list[str], data: str | None = None) -> str:
        command = [self.path, *arguments]
        try:
            rc, stdout, stderr = self._run_command(command, data=data, handle_exceptions=False)
        except FileNotFoundError:
            raise IstioctlError(
                f"istioctl was not found at {self.path}. Install istioctl, or set istioctl_path to where it is.",
                cmd=command,
            ) from None
        except (OSError, ValueError) as error:
            raise IstioctlError(
                f"{self.path} cannot be run: {getattr(error, 'strerror', None) or error}. Set istioctl_path to an"
                " istioctl that may be executed and is built for this machine.",
                cmd=command,
            ) from error
        if rc != 0:
            what = " ".join(argument for argument in arguments[:2] if not argument.startswith("-"))
            raise IstioctlError(f"istioctl {what} failed: {_reason(stderr or stdout, rc)}", rc, stdout, stderr, command)
        warnings = filter(None, map(_plain, stderr.splitlines()))
        self.warnings = list(dict.fromkeys([*self.warnings, *warnings]))
        return stdout


def _plain(line: str) -> str:
    """A line without the marks that istioctl decorates warnings with."""
    return re.sub(r"^[\W_]*(warning\s*[:!]\s*)?", "", line.strip(), flags=re.IGNORECASE).strip()


def _reason(text: str, rc: int) -> str:
    """istioctl's reason without its wrapping."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line[len("Error:") :].strip() for line in lines if line.startswith("Error:")]
    reason = " ".join(errors or lines[-5:]) or f"return code {rc}, no message"
    for prefix in (
        "merge inputs: ",
        "could not unmarshal: ",
        "error unmarshaling JSON: ",
        "while decoding JSON: ",
        "json: ",
    ):
        reason = reason[len(prefix) :] if reason.startswith(prefix) else reason
    if "unknown field" in reason:
        reason += ". Correct that key of the option spec; this version of Istio does not have it"
    elif re.search(r'profile "[^"]*" not found', reason):
        reason = reason.split(": open ")[0] + ". Set spec.profile to a profile of this version of Istio"
    return reason if reason.endswith(".") else f"{reason}."
