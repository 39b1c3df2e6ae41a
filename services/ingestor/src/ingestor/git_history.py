"""The history of a folder in a git repository as versions of documents: each commit that changed a file is one."""

import datetime as dt
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

_MOST_CHANGES = 200_000
# Configuration of the machine or of the repository runs nothing and reaches nobody.
_SAFE = (
    "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "protocol.allow=never",
    "-c", "core.quotePath=false", "-c", "log.showSignature=false", "-c", "diff.renameLimit=2000",
)  # fmt: skip


class HistoryError(Exception):
    """The history cannot be read; the message says why."""


@dataclass(frozen=True)
class Revision:
    """One version of one file; `name` is the path under which the file first appeared, whatever it is called later."""

    name: str
    path: str
    commit: str
    at: dt.datetime
    blob: str
    removed_at: dt.datetime | None = None


@dataclass(frozen=True)
class _Change:
    at: dt.datetime
    commit: str
    status: str
    blob: str
    path: str
    old_path: str


@dataclass
class _Lineage:
    """One file over its renames; a revision's end is set when the file is removed."""

    name: str
    revisions: list[Revision] = field(default_factory=list)

    def add(self, change: _Change, path: str) -> None:
        """Take a change in; the order of the history wins over clocks that were wrong."""
        at = change.at
        if self.revisions:
            last = self.revisions[-1]
            ended = max(last.at, last.removed_at or last.at)
            if last.removed_at is None and last.blob == change.blob:
                return
            at = max(at, ended + dt.timedelta(seconds=1))
        self.revisions.append(Revision(self.name, path, change.commit, at, change.blob))

    def remove(self, at: dt.datetime) -> None:
        """Note that nothing is in force from then on."""
        if self.revisions and self.revisions[-1].removed_at is None:
            last = self.revisions[-1]
            end = max(at, last.at + dt.timedelta(seconds=1))
            self.revisions[-1] = Revision(last.name, last.path, last.commit, last.at, last.blob, end)


def revisions(repository: Path, inside: str, ref: str, *, per_day: bool, timeout_seconds: float) -> list[Revision]:
    """Return every version of every file below `inside`, by file and then oldest first; raise HistoryError.

    The first parents of `ref` count: what stood on the branch, when it came to stand there.
    """
    lineages: list[_Lineage] = []
    current: dict[str, _Lineage] = {}
    names: set[str] = set()

    def begun(path: str) -> _Lineage:
        name, number = path, 1
        while name in names:
            # The name belongs to a file that has been renamed since.
            number += 1
            name = str(PurePosixPath(path).with_stem(f"{PurePosixPath(path).stem}~{number}"))
        names.add(name)
        lineages.append(_Lineage(name))
        return lineages[-1]

    for change in _changes(repository, inside, ref, timeout_seconds):
        if change.status == "D":
            if change.path in current:
                current[change.path].remove(change.at)
            continue
        if change.status == "R" and change.old_path in current:
            current[change.path] = current.pop(change.old_path)
        if change.path not in current:
            current[change.path] = begun(change.path)
        current[change.path].add(change, change.path)
    found = [_of_days(lineage.revisions) if per_day else lineage.revisions for lineage in lineages]
    return [revision for part in found for revision in part]


def _of_days(found: list[Revision]) -> list[Revision]:
    """Return the last revision of each day; one that was removed the same day never held."""
    last = {revision.at.date(): revision for revision in found}
    return [revision for day, revision in sorted(last.items()) if revision.removed_at is None or revision.removed_at.date() > day]


def _changes(repository: Path, inside: str, ref: str, timeout_seconds: float) -> Iterator[_Change]:
    command = ["log", "--first-parent", "-m", "--reverse", "--raw", "--no-abbrev", "-z", "-M60%", "--diff-filter=ADMRT",
               "--no-ext-diff", "--no-textconv", "--format=%x01%H %ct", "--end-of-options", ref, "--", inside or "."]  # fmt: skip
    fields = _output(repository, command, timeout_seconds).decode(errors="surrogateescape").split("\0")
    at, commit, position, count = dt.datetime.fromtimestamp(0, dt.UTC), "", 0, 0
    while position < len(fields):
        entry = fields[position].lstrip("\n")
        position += 1
        if entry.startswith("\x01"):
            commit, _, seconds = entry[1:].strip().partition(" ")
            at = dt.datetime.fromtimestamp(int(seconds), dt.UTC)
        elif entry.startswith(":"):
            _, new_mode, _, blob, status = entry.split(" ")
            renamed = status[0] in "RC"
            paths = fields[position : position + 1 + renamed]
            position += 1 + renamed
            count += 1
            if count > _MOST_CHANGES:
                raise HistoryError(f"the history has more than {_MOST_CHANGES} changes; name a folder with 'inside'")
            if new_mode.startswith("100"):
                yield _Change(at, commit, status[0], blob, paths[-1], paths[0])
            elif status[0] != "A":
                # A link or a submodule is no document; one that replaces a file ends it.
                yield _Change(at, commit, "D", blob, paths[0], paths[0])


def contents(repository: Path, blobs: list[str], *, largest: int, timeout_seconds: float) -> Iterator[tuple[str, bytes | None]]:
    """Yield each blob's name and bytes in order, None for one larger than `largest`; raise HistoryError."""
    deadline = time.monotonic() + timeout_seconds
    for first in range(0, len(blobs), 64):
        some = blobs[first : first + 64]
        check = ["cat-file", "--batch-check=%(objecttype) %(objectsize)"]
        sizes = _output(repository, check, _left(deadline), "\n".join(some)).split(b"\n")
        fits = [size.startswith(b"blob ") and int(size[5:]) <= largest for size in sizes[: len(some)]]
        # One at a time would start a process for each; all at once might not fit into memory.
        wanted = [blob for blob, fit in zip(some, fits, strict=True) if fit]
        read = dict(_batch(repository, wanted, _left(deadline)))
        yield from ((blob, read.get(blob)) for blob in some)


def _batch(repository: Path, blobs: list[str], timeout_seconds: float) -> Iterator[tuple[str, bytes]]:
    data, position = _output(repository, ["cat-file", "--batch"], timeout_seconds, "\n".join(blobs)) if blobs else b"", 0
    for blob in blobs:
        end = data.index(b"\n", position)
        size = int(data[position:end].split(b" ")[2])
        yield blob, data[end + 1 : end + 1 + size]
        position = end + 1 + size + 1


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise HistoryError("git takes too long")
    return left


def _output(repository: Path, command: list[str], timeout_seconds: float, standard_input: str = "") -> bytes:
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
    }
    try:
        done = subprocess.run(
            ["git", *_SAFE, "-C", str(repository), *command],
            input=standard_input.encode(),
            capture_output=True,
            env=environment,
            timeout=timeout_seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise HistoryError("git is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise HistoryError(f"git takes longer than {timeout_seconds:.0f} s") from error
    if done.returncode:
        said = " ".join(done.stderr[:2000].decode(errors="replace").split())
        raise HistoryError(f"git {command[0]}: {said[:300]}")
    return done.stdout
