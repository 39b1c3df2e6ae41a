"""Checks the whole log from the files and the public keys alone, with no service running."""

import heapq
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from audit import checkpoints, segments
from audit.leaves import InvalidLeafError, decode
from audit.producers import Producers
from audit.trust import Trust, load_trust
from chassis.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from tlog.notes import Checkpoint, InvalidNoteError, open_checkpoint, parse_verifier
from tlog.tiles import TILES, WIDTH, parse_tile_path, tile_path
from tlog.tree import EMPTY_ROOT, HASH_BYTES, CompactRange, leaf_hash


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of the log found; `first_bad_index` means nothing while it is intact, and `head` is the root in hexadecimal."""

    intact: bool
    size: int
    head: str
    first_bad_index: int
    problem: str
    # The largest size that a known witness has cosigned, and who did.
    cosigned: int = 0
    witnesses: tuple[str, ...] = ()
    # Numbers of producers that never reached the log: `producer: first-last`.
    gaps: tuple[str, ...] = ()
    # Whole lines behind the newest checkpoint: of a writer at work, of one that was killed, or of somebody who may not write.
    unsigned: int = 0


@dataclass(frozen=True, slots=True, order=True)
class _Claim:
    """Somebody's signed word that the log has this root at this size."""

    size: int
    root: bytes
    source: str
    # Whether somebody else than the log says so.
    independent: bool = False


class _AlteredError(Exception):
    """The log is not what was signed, from `index` on."""

    def __init__(self, index: int, problem: str) -> None:
        super().__init__(problem)
        self.index, self.problem = index, problem


@dataclass
class _Tiles:
    """The tile files, compared with the tree as it grows."""

    folder: Path
    first_mismatch: int | None = None
    problem: str = ""
    _current: dict[int, tuple[int, list[tuple[str, bytes]]]] = field(default_factory=dict)

    def completed(self, level: int, index: int, value: bytes) -> None:
        """Compare one hash of the tree with what the tiles have there; remember the first that differs."""
        tile_level, (number, slot) = level // 8, divmod(index, WIDTH)
        if self._current.get(tile_level, (-1,))[0] != number:
            self._current[tile_level] = number, self._load(tile_level, number)
        for name, content in self._current[tile_level][1]:
            at = slot * HASH_BYTES
            if len(content) > at and content[at : at + HASH_BYTES] != value:
                self.differs(((index + 1) << level) - 1, f"{name}: its hash {slot} is not that of the log")

    def differs(self, index: int, problem: str) -> None:
        """Remember where tiles and leaves part, if nothing earlier was found."""
        if self.first_mismatch is None or index < self.first_mismatch:
            self.first_mismatch, self.problem = index, problem

    def _load(self, level: int, number: int) -> list[tuple[str, bytes]]:
        full = self.folder / tile_path(level, number)
        partial = full.with_name(f"{full.name}.p")
        paths = [full, *(sorted(partial.iterdir()) if partial.is_dir() else ())]
        found = []
        for path in paths:
            # A running writer replaces the tiles at the right edge.
            with suppress(FileNotFoundError, ValueError):
                name = str(path.relative_to(self.folder))
                width, content = parse_tile_path(name)[2], path.read_bytes()
                if len(content) != width * HASH_BYTES:
                    self.differs(number * WIDTH << (8 * level), f"{name}: it has {len(content)} bytes")
                found.append((name, content))
        return found


def verify(
    folder: Path,
    *,
    trust: Trust | None = None,
    claims: Iterable[Checkpoint] = (),
    kept: Iterable[str] = (),
    keys: Iterable[str] = (),
    witness_keys: Iterable[str] = (),
) -> Verification:
    """Check every leaf of the log in `folder` against every checkpoint, cosigned or not, and the tiles against the leaves.

    The public keys default to those in `folder`'s state folder; `keys` and `witness_keys` give them as text. `claims` are
    checkpoints that somebody else knows to be true, `kept` signed notes that somebody else kept.
    Raises NotFoundError when there is no log and nobody says that there was one, FailedPreconditionError when its public keys are not
    there, InvalidArgumentError for `keys` that are none.
    """
    check, claims, kept = _Check(folder), tuple(claims), tuple(kept)
    if check.is_empty() and not claims and not kept:
        raise NotFoundError(f"there is no log at {folder}")
    trust = trust if trust is not None else _trust(folder, tuple(keys), tuple(witness_keys))
    try:
        check.run(trust, [*claims, *(check.opened(note, trust, "a checkpoint that was kept elsewhere") for note in kept)])
    except _AlteredError as found:
        return check.result(found)
    except InvalidNoteError as error:
        return check.result(_AlteredError(check.tree.size, str(error)))
    return check.result(None)


def _trust(folder: Path, keys: tuple[str, ...], witness_keys: tuple[str, ...]) -> Trust:
    """Return the given keys, or else those beside the log."""
    try:
        if keys:
            return Trust(tuple(map(parse_verifier, keys)), tuple(map(parse_verifier, witness_keys)))
        return load_trust(folder.parent)
    except InvalidNoteError as error:
        raise (InvalidArgumentError if keys else FailedPreconditionError)(str(error)) from error


class _Check:
    """One walk over a log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree = CompactRange()
        self.tiles = _Tiles(folder)
        self.producers = Producers()
        self.cosigned, self.witnesses = 0, set[str]()
        # Sizes up to which the log's own word, and that of others, fits.
        self._good, self._good_elsewhere = 0, 0
        # Where the log's own checkpoints end, and how many whole lines follow the newest.
        self._signed_size, self.unsigned = 0, 0
        self._misread: tuple[int, str] | None = None
        self._limits: dict[str, int] = {}

    def run(self, trust: Trust, others: Iterable[Checkpoint]) -> None:
        """Walk; raise _AlteredError at the first thing that is not as signed."""
        if not (self.folder / checkpoints.SIGNED).exists():
            raise _AlteredError(0, f"{self.folder}: {checkpoints.SIGNED} is missing")
        elsewhere = [_Claim(claim.size, claim.root, "a checkpoint that was kept elsewhere", independent=True) for claim in others]
        # Measured before the leaves are read, so that what is written meanwhile lies beyond them.
        # A witness signs what the log has signed before, so its file is measured first.
        self._limits = {name: checkpoints.length(self.folder / name) for name in (checkpoints.COSIGNED, checkpoints.SIGNED)}
        sources = (self._signed(trust), self._cosigned(trust), self._published(trust), sorted(elsewhere))
        statements = heapq.merge(*sources, key=lambda claim: claim.size)
        pending = next(statements, None)
        lines = self._lines()
        while pending is not None:
            while self.tree.size < pending.size:
                self._take(next(lines, None), pending)
            self._compare(pending)
            pending = next(statements, None)
        if self.tiles.first_mismatch is not None and self.tiles.first_mismatch < self.tree.size:
            raise _AlteredError(self.tiles.first_mismatch, f"record {self.tiles.first_mismatch}: {self.tiles.problem}")
        self._stray_tiles()
        self._check_ends(lines)
        if trust.witnesses and self.tree.size and not self.cosigned:
            raise _AlteredError(0, f"{checkpoints.COSIGNED}: no witness has cosigned, although witnesses are known")

    def is_empty(self) -> bool:
        """Return whether nothing in the folder is of a log."""
        names = (checkpoints.SIGNED, checkpoints.COSIGNED, checkpoints.PUBLISHED)
        return not segments.list_segments(self.folder) and not any((self.folder / name).exists() for name in names)

    def _check_ends(self, lines: Iterator[segments.Line]) -> None:
        """Check that the log's own checkpoints reach as far as those that others have, and that what follows the newest can be a record."""
        if self._signed_size < self._good_elsewhere:
            cut = f"it ends at {self._signed_size} records, although {self._good_elsewhere} were signed; its end was cut off"
            raise _AlteredError(self._signed_size, f"{checkpoints.SIGNED}: {cut}")
        if self.tree.size and not (self.folder / checkpoints.PUBLISHED).exists():
            raise _AlteredError(self.tree.size, f"{checkpoints.PUBLISHED}: it is missing")
        for line in lines:
            where = f"{line.segment.name} line {line.number}, record {line.index}"
            if not line.is_whole:
                # What a writer has not finished yet; the rest of it may follow as if it were a line.
                if not line.raw.startswith(b'{"'[: len(line.raw)]):
                    raise _AlteredError(line.index, f"{where}: it is not the beginning of a record")
                return
            try:
                decode(line.leaf)
            except InvalidLeafError as error:
                raise _AlteredError(line.index, f"{where}: it is not a record, and no checkpoint covers it") from error
            self.unsigned += 1

    def _take(self, line: segments.Line | None, claim: _Claim) -> None:
        index = self.tree.size
        if line is None or not line.is_whole:
            if self._suspect(index) is not None:
                raise self._altered(claim)
            where = line.segment.name if line is not None else next((p.name for p in reversed(segments.list_segments(self.folder))), "")
            lost = f"the log ends after {index} records, {claim.size} were written; the end was cut off"
            raise _AlteredError(index, f"{where or self.folder.name}: {lost}")
        self.tree.append(leaf_hash(line.leaf), self.tiles.completed)
        try:
            self.producers.add(json.loads(line.leaf))
        except (ValueError, TypeError, AttributeError, RecursionError):
            if self._misread is None:
                self._misread = index, f"{line.segment.name} line {line.number}: it is not a record"

    def _lines(self) -> Iterator[segments.Line]:
        try:
            yield from segments.lines(self.folder)
        except segments.MisplacedSegmentError as error:
            suspect = self._suspect(error.index + 1)
            if suspect is None:
                raise _AlteredError(error.index, str(error)) from error
            raise _AlteredError(suspect, f"{self._where(suspect)}: it is not what was written; {error}") from error

    def _compare(self, claim: _Claim) -> None:
        if self.tree.root() != claim.root:
            # Who holds the log's key can make its own word fit anything.
            self._good = self._good_elsewhere if claim.independent else min(self._good, claim.size - 1)
            raise self._altered(claim)
        self._good = claim.size
        if claim.independent:
            self._good_elsewhere = claim.size

    def _suspect(self, before: int) -> int | None:
        """Return the first record since the last good checkpoint that cannot be what was written, if one is known."""
        known = [self.tiles.first_mismatch, None if self._misread is None else self._misread[0]]
        return min((index for index in known if index is not None and self._good <= index < before), default=None)

    def _altered(self, claim: _Claim) -> _AlteredError:
        suspect = self._suspect(self.tree.size)
        if suspect is not None:
            return _AlteredError(suspect, f"{self._where(suspect)}: it is not what was written; {claim.source} states another root")
        last = claim.size - 1
        span = f"record {last}" if self._good == last else f"one of the records {self._good} to {last}"
        return _AlteredError(self._good, f"{span} is not what was written; {claim.source} states another root")

    def _where(self, index: int) -> str:
        for line in segments.lines(self.folder, index):
            if line.index == index:
                return f"{line.segment.name} line {line.number}, record {index}"
        return f"record {index}"

    def _signed(self, trust: Trust) -> Iterator[_Claim]:
        yield from self._claims(trust, checkpoints.SIGNED, cosigned=False)

    def _cosigned(self, trust: Trust) -> Iterator[_Claim]:
        yield from self._claims(trust, checkpoints.COSIGNED, cosigned=True)

    def _claims(self, trust: Trust, name: str, *, cosigned: bool) -> Iterator[_Claim]:
        before = 0
        for entry in checkpoints.read(self.folder / name, self._limits[name]):
            where = f"{name} line {entry.number}"
            found = self.opened(entry.note, trust, where, cosigned=cosigned)
            if found.size < before:
                raise _AlteredError(found.size, f"{where}: the log shrank from {before} to {found.size} records")
            before = found.size
            if not cosigned:
                self._signed_size = found.size
            yield _Claim(found.size, found.root, where, independent=cosigned)

    def opened(self, content: str, trust: Trust, where: str, *, cosigned: bool = False) -> Checkpoint:
        """Return the checkpoint of a note that the log has signed; raise _AlteredError for any other."""
        problem = InvalidNoteError("no key of the log is known")
        for key in trust.log:
            try:
                found, note = open_checkpoint(content, key)
                signers = note.verified(trust.witnesses)
            except InvalidNoteError as error:
                problem = error
                continue
            if cosigned and signers:
                self.cosigned = max(self.cosigned, found.size)
                self.witnesses |= set(signers)
            elif cosigned and trust.witnesses:
                raise _AlteredError(self._good, f"{where}: no known witness has signed it")
            return found
        raise _AlteredError(self._good, f"{where}: {problem}")

    def _published(self, trust: Trust) -> Iterator[_Claim]:
        path = self.folder / checkpoints.PUBLISHED
        if path.exists():
            try:
                content = path.read_bytes().decode()
            except UnicodeDecodeError as error:
                raise _AlteredError(self._good, f"{checkpoints.PUBLISHED}: {error}") from error
            found = self.opened(content, trust, checkpoints.PUBLISHED, cosigned=False)
            yield _Claim(found.size, found.root, checkpoints.PUBLISHED)

    def _stray_tiles(self) -> None:
        """Find files among the tiles that are none."""
        for path in (self.folder / TILES).rglob("*"):
            if not path.is_file() or path.name.startswith("."):
                continue
            name = str(path.relative_to(self.folder))
            try:
                parse_tile_path(name)
            except (ValueError, IndexError) as error:
                raise _AlteredError(self.tree.size, f"{name}: it does not belong to the log") from error

    def result(self, found: _AlteredError | None) -> Verification:
        """Return what was found."""
        root = self.tree.root() if self.tree.size else EMPTY_ROOT
        return Verification(
            intact=found is None,
            size=self.tree.size,
            head=root.hex(),
            first_bad_index=found.index if found is not None else 0,
            problem=found.problem if found is not None else "",
            cosigned=self.cosigned,
            witnesses=tuple(sorted(self.witnesses)),
            gaps=self.producers.gaps(),
            unsigned=self.unsigned,
        )
