"""Container images under the names that real manifests ask for, in a containerd root that nodes link to."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from lab.build import Parts
from lab.host import CACHE, made_once, run, say
from lab.topology import Topology

STORE = CACHE / "images"
#: Raise when the way images are made changes.
FORMAT = "1"
BOOKINFO_TAG = "1.20.3"
BUSYBOX_LINKS = ("sh", "cat", "cp", "grep", "ls", "ps", "rm", "sed", "sleep", "tee", "vi", "wget")


@dataclass(frozen=True)
class Layer:
    """Part of an image's root file system: files by their path in it, or a whole tree. `key` stands for the content."""

    key: str
    files: dict[str, Path] = field(default_factory=dict)
    tree: Path | None = None
    links: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> str:
        """Writes the layer as a tar archive without times or owners, and returns its diff ID."""
        with tarfile.open(path, "w") as archive:
            if self.tree:
                archive.add(self.tree, arcname=".", filter=_anonymous)
            for name, source in self.files.items():
                entry = _anonymous(archive.gettarinfo(source, name))
                entry.mode = 0o755
                with source.open("rb") as data:
                    archive.addfile(entry, data)
            for name, target in self.links.items():
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname = tarfile.SYMTYPE, target
                archive.addfile(entry)
        with path.open("rb") as data:
            return hashlib.file_digest(data, "sha256").hexdigest()


@dataclass(frozen=True)
class Image:
    """One image; `key` changes exactly when its content does."""

    name: str
    layers: tuple[Layer, ...]
    entrypoint: tuple[str, ...] = ()
    user: str = ""

    @property
    def key(self) -> str:
        """What the image is made of, as text."""
        return json.dumps([FORMAT, [layer.key for layer in self.layers], self.entrypoint, self.user])


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def _binary(directory: Path, name: str, destination: str = "usr/local/bin") -> Layer:
    return Layer(f"{directory.name}/{name}/{destination}", {f"{destination}/{name}": directory / name})


def _kubernetes_images(topology: Topology, parts: Parts) -> list[str]:
    options = ["config", "images", "list", "--kubernetes-version", topology.kubernetes]
    return run([parts.kubernetes / "kubeadm", *options]).split()


def pause(topology: Topology, parts: Parts) -> str:
    """The name of the image that every pod's sandbox runs."""
    return next(name for name in _kubernetes_images(topology, parts) if "/pause:" in name)


def images(topology: Topology, parts: Parts) -> list[Image]:
    """Every image that the topology's manifests will ask for."""
    base = Layer(parts.image_base.name, tree=parts.image_base)
    # The control plane's binaries are static, so a shell to exec into is all they get besides.
    links = {f"bin/{name}": "busybox" for name in BUSYBOX_LINKS}
    shell = Layer(f"busybox/{parts.node.name}", {"bin/busybox": parts.node / "bin/busybox"}, links=links)
    result = []
    for name in _kubernetes_images(topology, parts):
        component = name.rpartition("/")[2].partition(":")[0]
        if component == "pause":
            result.append(Image(name, (shell,), ("/bin/sleep", "2147483647")))
        elif component == "kube-proxy":
            result.append(Image(name, (base, _binary(parts.kubernetes, component))))
        elif component == "coredns":
            result.append(Image(name, (_binary(parts.coredns, component, "."),), ("/coredns",)))
        else:
            result.append(
                Image(name, (shell, _binary(parts.etcd if component == "etcd" else parts.kubernetes, component)))
            )
    istio = f"docker.io/istio/{{}}:{topology.istio}"
    bootstrap = Layer(
        f"bootstrap/{parts.istio.name}", {"var/lib/istio/envoy/envoy_bootstrap_tmpl.json": parts.bootstrap}
    )
    agent, envoy = _binary(parts.istio, "pilot-agent"), _binary(parts.envoy, "envoy")
    plugin = _binary(parts.istio, "istio-cni", "opt/cni/bin")
    result += [
        Image(
            istio.format("pilot"),
            (_binary(parts.istio, "pilot-discovery"),),
            ("/usr/local/bin/pilot-discovery",),
            "1337",
        ),
        Image(istio.format("proxyv2"), (base, envoy, bootstrap, agent), ("/usr/local/bin/pilot-agent",), "1337"),
        Image(
            istio.format("install-cni"),
            (base, _binary(parts.istio, "install-cni"), plugin),
            ("/usr/local/bin/install-cni",),
        ),
    ]
    bookinfo = _binary(parts.bookinfo, "bookinfo")
    for workload in ("productpage-v1", "details-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3"):
        name = f"docker.io/istio/examples-bookinfo-{workload}:{BOOKINFO_TAG}"
        result.append(Image(name, (bookinfo,), ("/usr/local/bin/bookinfo", *workload.split("-"))))
    return result


def store(topology: Topology, parts: Parts) -> Path:
    """Brings the image store up to date, importing only what changed since the last time, and returns its path."""
    wanted = images(topology, parts)
    index = STORE / "index.json"
    imported: dict[str, str] = json.loads(index.read_text()) if index.exists() else {}
    missing = [image for image in wanted if imported.get(image.name) != image.key]
    if missing:
        say(f"importing {len(missing)} of {len(wanted)} images")
        (STORE / "containerd").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=STORE) as scratch:
            _write_archive(missing, Path(scratch))
            run([Path(__file__).parent / "node" / "import.sh", parts.node, STORE / "containerd", Path(scratch)])
        index.write_text(json.dumps(imported | {image.name: image.key for image in missing}, indent=1))
    return STORE / "containerd"


def _write_archive(wanted: list[Image], directory: Path) -> None:
    """One archive in Docker's format with every image, each shared layer once."""
    diff_ids: dict[str, str] = {}
    manifest = []
    with tarfile.open(directory / "images.tar", "w") as archive:
        for image in wanted:
            for layer in image.layers:
                if layer.key not in diff_ids:
                    path = directory / "layer.tar"
                    diff_ids[layer.key] = layer.write(path)
                    archive.add(path, f"{diff_ids[layer.key]}.tar")
            layers = [diff_ids[layer.key] for layer in image.layers]
            path_variable = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            config = {"Env": [path_variable], "Entrypoint": list(image.entrypoint), "User": image.user}
            content = json.dumps(
                {
                    "architecture": "amd64",
                    "os": "linux",
                    "config": config,
                    "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}" for layer in layers]},
                }
            ).encode()
            name = hashlib.sha256(content).hexdigest() + ".json"
            _add(archive, name, content)
            manifest.append({"Config": name, "RepoTags": [image.name], "Layers": [f"{layer}.tar" for layer in layers]})
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def link(target: Path) -> None:
    """Gives a node its own containerd root: layers, which never change, as hard links; databases as copies."""
    with made_once(target) as unfinished:
        run(["cp", "-al", f"{STORE / 'containerd'}/.", unfinished])
        for database in unfinished.rglob("*.db"):
            copy = database.with_suffix(".copy")
            shutil.copyfile(database, copy)
            copy.rename(database)
