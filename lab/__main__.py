"""The lab's commands: up, down, status, kubeconfig, istioctl. The Makefile calls them; see lab/README.md."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import build, cgroups, images, network
from lab.cluster import Node, write_kubeconfig
from lab.errors import LabError
from lab.host import CACHE, lock, say
from lab.topology import CHECKOUT, Topology, load

DEFAULT = CHECKOUT / "lab/topologies/three-clusters.yml"

INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")


class Lab:
    """All clusters of one topology."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.topology: Topology = load(self.path)
        self.nodes = [Node(self.topology, cluster) for cluster in self.topology.clusters]
        self.directory = CACHE / "labs" / self.topology.name
        self.kubeconfig = self.directory / "kubeconfig"
        #: The limit of INOTIFY as it was, where this lab raised it.
        self.inotify = self.directory / "max_user_instances"
        #: Cgroup of the process that makes ServiceImports.
        self.importer = f"{self.topology.name}-service-import"

    def up(self) -> None:
        """Builds what is missing, starts what is not running, and waits until every cluster is Ready."""
        parts = build.build(self.topology)
        images.store(self.topology, parts)
        (self.directory / "istioctl").unlink(missing_ok=True)
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "istioctl").symlink_to(parts.istio / "istioctl")
        self._allow_watches()
        network.up(self.topology)
        pause_image = images.pause(self.topology, parts)
        stopped = [node for node in self.nodes if not node.running()]
        for node in stopped:
            say(f"{node.cluster.name}: starting")
            node.start(parts, pause_image)
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            for future in [pool.submit(node.finish, parts) for node in self.nodes]:
                future.result()
        write_kubeconfig(self.topology, self.nodes, self.kubeconfig)
        self._start_importer()
        contexts = ", ".join(node.cluster.name for node in self.nodes)
        say(f"{len(self.nodes)} clusters are ready: contexts {contexts} in {self.kubeconfig}")

    def _allow_watches(self) -> None:
        """A node uses some 25 inotify instances and a mesh's pods more, and the kernel's limit holds for all nodes."""
        limit, wanted = int(INOTIFY.read_text()), 128 + 64 * len(self.nodes)
        if limit < wanted:
            say(f"raising {INOTIFY} from {limit} to {wanted} until the lab goes down")
            self.inotify.write_text(str(limit))
            INOTIFY.write_text(str(wanted))

    def _start_importer(self) -> None:
        if cgroups.processes(self.importer):
            return
        argv = [sys.executable, "-m", "lab.service_import", str(self.path)]
        cgroups.spawn(self.importer, argv, self.directory / "service-import.log", cwd=CHECKOUT)

    def down(self) -> None:
        """Ends every process and removes every namespace, interface, cgroup and file of the lab; the cache stays."""
        cgroups.remove(self.importer)
        for node in self.nodes:
            say(f"{node.cluster.name}: stopping")
            node.stop()
        network.down(self.topology)
        if self.inotify.exists():
            INOTIFY.write_text(self.inotify.read_text())
        shutil.rmtree(self.directory, ignore_errors=True)
        say("the lab is down")

    def status(self) -> int:
        """Prints a line per cluster; 0 when all are ready, else 1."""
        good = True
        for node in self.nodes:
            state = "down"
            if node.running():
                try:
                    api = node.api()
                    version = api.version["kubernetes"]["gitVersion"]
                    pods = api.resources.get(api_version="v1", kind="Pod").get().items
                    running = sum(pod.status.phase == "Running" for pod in pods)
                    state = f"ready, Kubernetes {version}, {running} of {len(pods)} pods running"
                except Exception as error:  # whatever keeps it from answering is the status
                    state = f"not answering: {str(error).splitlines()[0]}"
            good = good and state.startswith("ready")
            print(f"{node.cluster.name:12} {node.cluster.address:12} {state}")
        return 0 if good else 1


def main() -> int:
    """Entry point; 1 with the reason on standard error when something cannot be done."""
    parser = argparse.ArgumentParser(prog="lab", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status", "kubeconfig", "istioctl", "inventory"])
    parser.add_argument("--topology", type=Path, default=DEFAULT)
    arguments = parser.parse_args()
    # An interrupt ends the command between two steps; what was started goes on and is found again.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        lab = Lab(arguments.topology)
        if arguments.command in ("up", "down"):
            with lock("lab"):
                getattr(lab, arguments.command)()
        elif arguments.command == "status":
            return lab.status()
        elif arguments.command == "inventory":
            print(lab.topology.inventory)
        else:
            path = lab.directory / arguments.command
            if not path.exists():
                raise LabError(f"the lab {lab.topology.name} is not up: run make lab")
            print(path)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
