"""Prepares this machine for the Makefile's commands and prints the path of the virtual environment they run in.

`python3 -m lab.prepare [--lab]` needs Python 3.9 and its standard library only. It installs missing Debian packages,
makes the virtual environment of tests/requirements.txt and fetches kubernetes.core; what is there already it keeps.
`--lab` also checks what only the lab needs: root and the kernel's namespaces, overlays, bridges and nftables.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from lab.errors import LabError
from lab.host import CACHE, digest, lock, made_once, run, say

TESTS = Path(__file__).resolve().parent.parent / "tests"
REQUIREMENTS = TESTS / "requirements.txt"
KUBERNETES_CORE = TESTS / "kubernetes.core.txt"
#: Where Ansible finds kubernetes.core (ANSIBLE_COLLECTIONS_PATH).
COLLECTIONS = CACHE / "collections"

#: Programs, the Debian package that has each, and what it is for.
PROGRAMS = {"git": ("git", "gates"), "shellcheck": ("shellcheck", "gates")}
LAB_PROGRAMS = {
    "ip": ("iproute2", "the lab's network"),
    "nsenter": ("util-linux", "the lab's namespaces"),
    "mount": ("mount", "the lab's file systems"),
}
#: ansible-core 2.19 needs Python 3.11, and pins made on 3.11 do not cover 3.13.
PYTHONS = ("python3.11", "/usr/bin/python3", "python3", "python3.12")
PYTHON_RANGE = ((3, 11), (3, 13))
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input")


def check_machine(lab: bool) -> None:
    """LabError for what cannot be mended from here."""
    if not sys.platform.startswith("linux"):
        raise LabError(f"needs Linux; this is {platform.system()}")
    if lab and platform.machine() != "x86_64":
        raise LabError(f"the lab needs an x86_64 machine, for its Envoy; this is {platform.machine()}")
    if lab and os.geteuid() != 0:
        raise LabError(
            "the lab makes namespaces, mounts and cgroups: run this as root (the collection never needs root)"
        )


def check_kernel() -> None:
    """Tries what the lab asks of the kernel, in namespaces that end with the attempt; LabError for what is missing."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="probe-", dir=CACHE) as probe:
        for name in ("lower", "upper", "work", "merged"):
            Path(probe, name).mkdir()
        layers = f"lowerdir={probe}/lower,upperdir={probe}/upper,workdir={probe}/work"
        attempts = {
            "mount, PID, UTS, cgroup and network namespaces": "true",
            f"overlays on the file system of {CACHE} (set XDG_CACHE_HOME to a directory on another)": (
                f"mount -t overlay overlay -o {layers} {probe}/merged"
            ),
            "bridges (module bridge)": "ip link add probe0 type bridge",
            "virtual Ethernet pairs (module veth)": "ip link add probe1 type veth peer name probe2",
        }
        for feature, command in attempts.items():
            namespaces = ["unshare", "--mount", "--uts", "--pid", "--fork", "--cgroup", "--net"]
            done = subprocess.run([*namespaces, "sh", "-c", command], capture_output=True, text=True, check=False)
            if done.returncode:
                raise LabError(f"this machine's kernel or container does not allow {feature}: {done.stderr.strip()}")
    if not has_nftables():
        raise LabError("this machine's kernel has no nftables (module nf_tables), which kube-proxy uses")


def has_nftables() -> bool:
    """Asks the kernel for nftables' generation number (NFT_MSG_GETGEN), as the nft program does first."""
    nft_getgen, request = 10 << 8 | 16, 1  # linux/netfilter/nf_tables.h, linux/netlink.h
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:  # NETLINK_NETFILTER
        netlink.settimeout(2)
        netlink.send(struct.pack("=IHHIIBBH", 20, nft_getgen, request, 1, 0, 0, 0, 0))
        return bool(struct.unpack_from("=IH", netlink.recv(4096))[1] != 2)  # NLMSG_ERROR


def install(packages: dict[str, str]) -> None:
    """Installs Debian packages, given with what each is for."""
    listed = ", ".join(f"{name} (for {reason})" for name, reason in packages.items())
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise LabError(f"missing Debian packages: {listed}. Install them, or run this as root on Debian")
    say(f"installing Debian packages: {listed}")
    run(["apt-get", "-qq", "update"])
    run(
        ["apt-get", "-qq", "install", "-y", "--no-install-recommends", *packages],
        env={"DEBIAN_FRONTEND": "noninteractive"},
    )


def update_package_lists() -> None:
    """The lab unpacks Debian packages: a machine that never ran apt-get update (a fresh image) knows of none."""
    if not list(Path("/var/lib/apt/lists").glob("*_Packages*")):
        say("fetching the lists of Debian packages")
        run(["apt-get", "-qq", "update"])


def find_python() -> tuple[str, str]:
    """The interpreter to make the environment with: its path and its version."""
    seen = []
    for name in PYTHONS:
        if shutil.which(name) is None:
            continue
        question = "import sys; print(*sys.version_info[:2], sys.version.split()[0], sys.executable)"
        answer = subprocess.run([name, "-c", question], capture_output=True, text=True, check=False)
        if answer.returncode:  # a pyenv shim of a version that is not switched on
            continue
        major, minor, version, path = answer.stdout.split()
        if PYTHON_RANGE[0] <= (int(major), int(minor)) < PYTHON_RANGE[1]:
            return path, version
        seen.append(f"{path} is {version}")
    raise LabError(f"needs Python 3.11 or 3.12 as one of {', '.join(PYTHONS)}; {'; '.join(seen) or 'there is none'}")


def make_environment(python: str, version: str) -> Path:
    """The virtual environment of the pinned requirements; made anew when an earlier attempt did not end."""
    environment = CACHE / f"venv-{digest(REQUIREMENTS, version, python)}"
    done = environment / ".complete"
    if done.exists() and (environment / "bin/python").exists():
        return environment
    if subprocess.run([python, "-c", "import ensurepip"], check=False, stderr=subprocess.DEVNULL).returncode:
        install({"python3-venv": "Python's virtual environments"})
    say(f"installing Ansible and the tools into {environment} (1 to 3 minutes)")
    # In its place from the start: an environment's programs hold its path.
    shutil.rmtree(environment, ignore_errors=True)
    run([python, "-m", "venv", environment])
    run([environment / "bin/python", *PIP, "install", "--quiet", "--require-hashes", "-r", REQUIREMENTS])
    done.touch()
    return environment


def make_collections(environment: Path) -> None:
    """kubernetes.core, out of the PyPI package that carries it."""
    done = COLLECTIONS / f".{digest(KUBERNETES_CORE)}"
    if done.exists():
        return
    say(f"fetching kubernetes.core into {COLLECTIONS} (51 MB)")
    shutil.rmtree(COLLECTIONS, ignore_errors=True)
    with made_once(COLLECTIONS) as unfinished, tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        wheels = ["--no-deps", "--only-binary=:all:", "--python-version", "3.13", "--require-hashes"]
        run([environment / "bin/python", *PIP, "download", "--quiet", *wheels, "-r", KUBERNETES_CORE, "-d", scratch])
        with zipfile.ZipFile(next(Path(scratch).glob("ansible-*.whl"))) as wheel:
            prefix = "ansible_collections/kubernetes/core/"
            wheel.extractall(unfinished, [name for name in wheel.namelist() if name.startswith(prefix)])
        (unfinished / done.name).touch()


def main() -> int:
    """Entry point; 1 with the reason on standard error when something cannot be done."""
    lab = "--lab" in sys.argv[1:]
    try:
        check_machine(lab)
        python, version = find_python()
        programs = {**PROGRAMS, **(LAB_PROGRAMS if lab else {})}
        missing = {package: use for name, (package, use) in programs.items() if shutil.which(name) is None}
        with lock("prepare"):
            if missing:
                install(missing)
            if lab:
                check_kernel()
                update_package_lists()
            environment = make_environment(python, version)
            make_collections(environment)
    except LabError as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("prepare: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    print(environment)
    return 0


if __name__ == "__main__":
    sys.exit(main())
