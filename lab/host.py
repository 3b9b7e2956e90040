"""This machine: the cache directory, progress lines, and running programs with errors that show what went wrong."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from lab.errors import LabError

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "meshfleet.istio"
_started = time.monotonic()


def say(message: str) -> None:
    """One progress line with the seconds since the command started."""
    print(f"[{time.monotonic() - _started:5.0f} s] {message}", file=sys.stderr, flush=True)


def run(argv: Sequence[str | Path], *, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Runs a program and returns its standard output; LabError with the end of its output when it fails."""
    command = [str(a) for a in argv]
    environment = {**os.environ, **(env or {})}
    done = subprocess.run(command, check=False, env=environment, cwd=cwd, text=True, capture_output=True)
    if done.returncode:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        raise LabError(f"{' '.join(command[:6])} ended with {done.returncode}:\n{tail}")
    return done.stdout


def digest(*parts: str | Path) -> str:
    """Twelve hex digits over strings and the bytes of files."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part.encode()
        sha.update(len(data).to_bytes(8, "big") + data)
    return sha.hexdigest()[:12]


@contextlib.contextmanager
def made_once(path: Path) -> Iterator[Path]:
    """A directory to fill, which becomes `path` only when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    yield unfinished
    unfinished.rename(path)


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """One lab command at a time on this machine; a second one waits and says so."""
    CACHE.mkdir(parents=True, exist_ok=True)
    handle: IO[str]
    with (CACHE / f"{name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another lab command to end ({CACHE / name}.lock)")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
