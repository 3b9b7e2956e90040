"""A cgroup of its own for each node, in every hierarchy of this machine (cgroup v1, v2 or both)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from lab.errors import LabError

PARENT = "meshfleet-lab"


def _hierarchies() -> list[Path]:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(m[1]) for m in mounts if m[2] in {"cgroup", "cgroup2"} and m[1].startswith("/sys/fs/cgroup")]


def create(node: str) -> list[Path]:
    """Creates the node's cgroup everywhere; returns the files that a process writes itself into to join."""
    joins = []
    for hierarchy in _hierarchies():
        parent = hierarchy / PARENT
        parent.mkdir(exist_ok=True)
        if (parent / "cpuset.mems").exists() and (parent / "cgroup.clone_children").exists():
            # cgroup v1: without processors and memory nothing may join, and a child starts with none.
            for limit in ("cpuset.cpus", "cpuset.mems"):
                (parent / limit).write_text((hierarchy / limit).read_text())
            (parent / "cgroup.clone_children").write_text("1")
        for group in (hierarchy, parent):
            control = group / "cgroup.subtree_control"
            if control.exists():
                control.write_text(" ".join(f"+{c}" for c in (group / "cgroup.controllers").read_text().split()))
        (parent / node).mkdir(exist_ok=True)
        joins.append(parent / node / "cgroup.procs")
    return joins


def spawn(node: str, argv: list[str], log: Path, cwd: Path | None = None) -> None:
    """Starts a program that outlives this one, in the node's cgroup; returns once it is there, or has ended."""
    joins = " ".join(map(str, create(node)))
    with log.open("a") as output:
        process = subprocess.Popen(
            ["sh", "-c", f'for f in {joins}; do echo $$ > $f; done; exec "$@"', "sh", *argv],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    while not processes(node) and process.poll() is None:
        time.sleep(0.02)


def processes(node: str) -> set[int]:
    """Every process in the node's cgroups and those below them."""
    found: set[int] = set()
    for hierarchy in _hierarchies():
        # Of cgroups that go away meanwhile, os.walk and open say nothing that matters.
        for directory, _, _ in os.walk(hierarchy / PARENT / node):
            with contextlib.suppress(OSError):
                found.update(int(pid) for pid in Path(directory, "cgroup.procs").read_text().split())
    return found


def remove(node: str, timeout: float = 20) -> None:
    """Ends what still runs in the node's cgroups and removes them."""
    deadline = time.monotonic() + timeout
    while True:
        running = processes(node)
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            for hierarchy in _hierarchies():
                for directory, _, _ in os.walk(hierarchy / PARENT / node, topdown=False):
                    os.rmdir(directory)
            break
        except OSError as error:  # busy until the last process is gone
            if time.monotonic() > deadline:
                raise LabError(f"{node}: processes {sorted(running)} do not end: {error}") from error
        time.sleep(0.1)
    for hierarchy in _hierarchies():
        parent = hierarchy / PARENT
        if parent.is_dir() and not any(p.is_dir() for p in parent.iterdir()):
            parent.rmdir()
