"""Every check of this checkout, the quick ones first: one line per gate with its result, a figure and its seconds.

Runs in the environment of lab/prepare.py (make test, make test-fast). What a gate prints goes to a log of its own; when
a gate fails, the end of that log is shown and the next gate runs.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))
from lab.host import CACHE  # noqa: E402

BIN = Path(sys.executable).parent
WORK = CACHE / "gates"
LOGS = CACHE / "test-logs"
#: Another lab, as for make and for tests/integration.
TOPOLOGY = os.environ.get("TOPOLOGY", "lab/topologies/three-clusters.yml")
#: The pip that ansible-test of ansible-core 2.19 puts into its environments.
ANSIBLE_TEST_PIP = "24.2"
#: All that may stand at the top of the collection's archive.
ARCHIVE = {
    "CHANGELOG.rst", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "FILES.json", "LICENSE", "MANIFEST.json", "README.md",
    "changelogs", "docs", "execution-environment", "extensions", "inventory", "meta", "playbooks", "plugins",
    "requirements.txt", "roles", "site.yml", "tests",
}  # fmt: skip
#: Tests that need no lab: of the plugins, and of the lab's own Python.
UNIT = ("tests/unit", "tests/lab")
#: In pytest's last line.
PASSED = r"(\d+) passed"

ENVIRONMENT = {
    **os.environ,
    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    "ANSIBLE_COLLECTIONS_PATH": f"{CHECKOUT / 'collections'}{os.pathsep}{CACHE / 'collections'}",
    "ANSIBLE_HOME": str(WORK / "ansible"),
    # Nothing is left in the checkout.
    "COVERAGE_FILE": str(WORK / "coverage"),
    "MYPY_CACHE_DIR": str(WORK / "mypy"),
    "PYTHONDONTWRITEBYTECODE": "1",
    "RUFF_CACHE_DIR": str(WORK / "ruff"),
}


class Failed(Exception):
    """A gate did not pass; the reason is in its log, and here when no program printed it."""


class Log:
    """One gate's log, and the programs that write to it."""

    def __init__(self, name: str) -> None:
        LOGS.mkdir(parents=True, exist_ok=True)
        self.path = LOGS / f"{name}.log"
        self.path.write_text("")

    def run(self, *argv: str | Path, cwd: Path = CHECKOUT, **environment: str) -> str:
        """Runs a program of the environment; returns what it printed. Failed when it does not end with 0."""
        start = self.path.stat().st_size
        with self.path.open("a") as log:
            log.write(f"$ {' '.join(map(str, argv))}\n")
            log.flush()
            done = subprocess.run(
                [str(word) for word in argv], cwd=cwd, env={**ENVIRONMENT, **environment}, check=False,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        if done.returncode:
            raise Failed(f"{argv[0]} ended with {done.returncode}")
        with self.path.open() as log:
            log.seek(start)
            return log.read()

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.path.read_text().splitlines()[-lines:])


def figure(pattern: str, output: str) -> str:
    """The last text in the output that matches: its first group, or the whole."""
    found = [match.group(match.lastindex or 0) for match in re.finditer(pattern, output)]
    return found[-1] if found else ""


def tracked(*patterns: str) -> list[str]:
    """The checkout's files that match, those not yet added included, those ignored not."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    found = subprocess.run(listing, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout.splitlines()
    return sorted({name for name in found if (CHECKOUT / name).is_file()})


def yamllint(log: Log) -> str:
    """YAML files, warnings count."""
    files = tracked("*.yml", "*.yaml", ".ansible-lint", ".yamllint")
    log.run("yamllint", "--strict", *files)
    return f"{len(files)} files"


def ruff(log: Log) -> str:
    """Python files: lint, and format."""
    files = tracked("*.py")
    log.run("ruff", "check", *files)
    log.run("ruff", "format", "--check", *files)
    return f"{len(files)} files"


def mypy(log: Log) -> str:
    """Types, strict; plugins under their full name, as Ansible imports them."""
    plugins = "collections/ansible_collections/meshfleet/istio/plugins"
    return figure(r"in (\d+ source files)", log.run("mypy", plugins, "lab", "tests"))


def shellcheck(log: Log) -> str:
    """The lab's node scripts and CI's."""
    files = tracked("*.sh", ".ci/run")
    log.run("shellcheck", *files)
    return f"{len(files)} files"


def lint(log: Log) -> str:
    """ansible-lint, with Automation Hub's profile."""
    output = log.run("ansible-lint", "--offline", "--strict", "--nocolor", "--profile", "production")
    return figure(r"in (\d+ files) processed", output)


def docs(log: Log) -> str:
    """The documentation of modules and roles, and what it refers to."""
    options = ["--plugin-docs", "--validate-collection-refs=dependent"]
    log.run("antsibull-docs", "lint-collection-docs", *options, CHECKOUT)
    return f"{len(tracked('plugins/modules/*.py'))} modules, {len(tracked('roles/*/meta/argument_specs.yml'))} roles"


def build_archive(log: Log) -> Path:
    """Builds the collection's archive from the checkout."""
    shutil.rmtree(WORK / "dist", ignore_errors=True)
    log.run("ansible-galaxy", "collection", "build", "--output-path", WORK / "dist", CHECKOUT)
    return next((WORK / "dist").glob("*.tar.gz"))


def build(log: Log) -> str:
    """The archive holds the collection and nothing else."""
    archive = build_archive(log)
    with tarfile.open(archive) as tar:
        names = [member.name + "/" * member.isdir() for member in tar]
    known = {"FILES.json", "MANIFEST.json", *tracked()}
    known |= {f"{folder}/" for name in known for folder in Path(name).parents}
    strangers = [
        name
        for name in names
        if name not in known or name.split("/")[0] not in ARCHIVE or re.match("tests/(?!$|config|unit)", name)
    ]
    if strangers:
        raise Failed(
            f"the archive holds what does not belong to it (build_ignore in galaxy.yml): {', '.join(strangers)}"
        )
    files = [name for name in names if not name.endswith("/")]
    return f"{len(files)} files, {archive.stat().st_size / 1024:.0f} KiB"


def unit(log: Log) -> str:
    """Unit tests, and the share of the plugins' lines and branches that they run."""
    output = log.run("coverage", "run", "-m", "pytest", "-q", "-o", f"cache_dir={WORK / 'pytest'}", *UNIT)
    log.run("coverage", "report")
    coverage = log.run("coverage", "report", "--format=total").split()[-1]
    return f"{figure(PASSED, output)} tests, {coverage} % covered"


def sanity(log: Log) -> str:
    """ansible-test sanity on the unpacked archive, in a tree and a home directory of its own."""
    tree, home = WORK / "sanity/ansible_collections", WORK / "home"
    collection = tree / "meshfleet/istio"
    shutil.rmtree(tree, ignore_errors=True)
    collection.mkdir(parents=True)
    with tarfile.open(build_archive(log)) as tar:
        tar.extractall(collection, filter="data")
    if (collection / "tests/sanity").exists():
        raise Failed("tests/sanity: there are to be no ignore files")
    (tree / "kubernetes").mkdir()
    (tree / "kubernetes/core").symlink_to(CACHE / "collections/ansible_collections/kubernetes/core")
    downloads = home / ".ansible/test/cache"
    downloads.mkdir(parents=True, exist_ok=True)
    if not list(downloads.glob(f"pip-{ANSIBLE_TEST_PIP}-*.whl")):
        log.run("pip", "download", "--quiet", "--no-deps", "--dest", downloads, f"pip=={ANSIBLE_TEST_PIP}")
    shutil.copy(CHECKOUT / "tests/get_pip.py", downloads / f"get_pip_{ANSIBLE_TEST_PIP.replace('.', '_')}.py")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    options = ["--local", "--requirements", "--python", python, "--color", "no"]
    output = log.run("ansible-test", "sanity", *options, cwd=collection, HOME=str(home))
    skipped = len(re.findall(r"(?i)^WARNING: .*skipp", output, re.MULTILINE))
    tests = len(set(re.findall(r"Running sanity test ['\"]([\w-]+)", output)))
    return f"{tests} tests" + (f", {skipped} skipped" if skipped else "")


def lab(log: Log) -> str:
    """The lab's clusters are up and answer."""
    command = [sys.executable, "-m", "lab", "--topology", TOPOLOGY]
    log.run(*command, "up")
    return f"{log.run(*command, 'status').count(' ready')} clusters"


def integration(log: Log) -> str:
    """The main job and every module on the lab's clusters."""
    output = log.run("pytest", "-v", "-o", f"cache_dir={WORK / 'pytest'}", "tests/integration")
    return f"{figure(PASSED, output)} tests"


FAST: list[Callable[[Log], str]] = [yamllint, ruff, mypy, shellcheck, lint, docs, build, unit, sanity]
ON_THE_LAB: list[Callable[[Log], str]] = [lab, integration]


def passes(gate: Callable[[Log], str]) -> bool:
    """Runs one gate and prints its line."""
    name, started, log = gate.__name__, time.monotonic(), Log(gate.__name__)
    print(f"{name:12}", end="", flush=True)
    reason = ""
    try:
        result = f"passed  {gate(log):34}"
    except Failed as error:
        reason = str(error)
        result = f"FAILED  {log.path!s:34}"
    print(f"{result} {time.monotonic() - started:6.1f} s", flush=True)
    if reason:
        print("\n".join(f"    {line}" for line in [*log.tail().splitlines(), reason]), flush=True)
    return not reason


def main() -> int:
    """Runs the chosen gates; 1 when one failed."""
    everything = {gate.__name__: gate for gate in FAST + ON_THE_LAB}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="leave out the gates that need the lab")
    parser.add_argument("--only", nargs="+", choices=everything, metavar="GATE", help="of: " + " ".join(everything))
    arguments = parser.parse_args()
    chosen = (
        [everything[name] for name in arguments.only] if arguments.only else FAST + ON_THE_LAB * (not arguments.fast)
    )
    results = [passes(gate) for gate in chosen]
    print(f"{results.count(True)} passed, {results.count(False)} failed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
