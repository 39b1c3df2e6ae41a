"""Where a log stands when it is opened: its tree, its tiles and its end, from the newest checkpoint and the files at the right edge."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from audit import checkpoints, leaves, segments
from audit.leaves import InvalidLeafError, Leaf
from audit.trust import Trust, load_trust
from audit.verification import verify
from chassis.errors import FailedPreconditionError
from chassis.logging import get_logger
from evidence.sealing import SealedError
from tlog.notes import Checkpoint, InvalidNoteError, Signer, open_checkpoint
from tlog.tiles import MissingTileError, TileReader, TileWriter
from tlog.tree import CompactRange, leaf_hash

log = get_logger("recovery")
# Tiles that a crash can leave unwritten at the right edge.
_MOST_RECOMPUTED = 8
_OLD_FORMAT = "head.json"


class Recovery:
    """Finds where to go on; it reads no more than the right edge unless something does not fit."""

    def __init__(self, folder: Path, signer: Signer) -> None:
        """Begin with an empty log."""
        self._folder, self._signer = folder, signer
        self._trust = _trust(folder, signer)
        self.tree, self.tiles = CompactRange(), TileWriter(folder)
        self.segment, self.end = folder / segments.name(0), 0
        # The newest checkpoint that is signed, and whether leaves beyond it were found.
        self.note, self.has_news = "", False

    def resume(self, *, has_keys: bool) -> None:
        """Find the signed end; raise FailedPreconditionError when the log is damaged, of an earlier format, or without its keys."""
        if (self._folder / _OLD_FORMAT).exists():
            raise FailedPreconditionError(
                f"{self._folder} holds a log of an earlier format ({_OLD_FORMAT}), never released; move it away to begin a new one"
            )
        newest = self._newest()
        if newest is None:
            if any(segment.stat().st_size for segment in segments.list_segments(self._folder)):
                raise FailedPreconditionError(f"the audit log in {self._folder} has records but no signed checkpoint; keep it as evidence")
            newest = Checkpoint(self._signer.name, 0, CompactRange().root())
        if newest.size and not has_keys:
            raise FailedPreconditionError(f"the audit log has {newest.size} records but the store of their keys is missing; restore it")
        self._resume(newest)

    def take_tail(self, made_here: Callable[[Leaf], bool], still_ours: Callable[[], None]) -> None:
        """Keep what a crash left whole behind the signed end, which nobody was told of yet; the rest lies beyond `end`.

        Whoever can write here could add a line, and must not get it signed: `made_here` tells whether this installation sealed a leaf.
        `still_ours` raises OSError once another process has taken over. Raises FailedPreconditionError when a file has no place.
        """
        try:
            self._take_tail(made_here, still_ours)
        except segments.MisplacedSegmentError as error:
            raise FailedPreconditionError(f"the audit log is damaged at record {error.index}: {error}") from error

    def _newest(self) -> Checkpoint | None:
        """Return the largest checkpoint that any of the files has; a shorter log than that is a damaged one."""
        newest = None
        try:
            for note in checkpoints.newest_notes(self._folder):
                found = self._opened(note)
                if newest is None or found.size > newest.size:
                    newest, self.note = found, note
        except InvalidNoteError as error:
            raise FailedPreconditionError(f"a checkpoint of the audit log is damaged: {error}; `strata audit verify` says where") from error
        return newest

    def _opened(self, note: str) -> Checkpoint:
        """Return the checkpoint of a note that the present key or an earlier one has signed."""
        for key in self._trust.log[:-1]:
            with suppress(InvalidNoteError):
                return open_checkpoint(note, key)[0]
        return open_checkpoint(note, self._trust.log[-1])[0]

    def _resume(self, newest: Checkpoint) -> None:
        """Go on with the tree that the newest checkpoint states, from its tiles, or from all leaves when those do not fit."""
        allowed = iter(range(_MOST_RECOMPUTED))

        def leaf_hashes(start: int, end: int) -> list[bytes]:
            if next(allowed, None) is None:
                raise MissingTileError("so many that computing all anew is quicker")
            return segments.leaf_hashes(self._folder, start, end)

        reader = TileReader(self._folder, leaf_hashes, store=True)
        with suppress(MissingTileError, segments.MisplacedSegmentError):
            self.tree = reader.compact_range(newest.size)
            self.tiles.load(newest.size, reader)
            if self.tree.root() == newest.root and self._last_segment_fits(newest.size, reader):
                return
        log.warning("tiles_rebuilt", size=newest.size)
        self._rebuild(newest)

    def _last_segment_fits(self, size: int, reader: TileReader) -> bool:
        """Tell whether the leaves of the last file are those of the tree; older files are for the full check."""
        first = max((int(path.stem) for path in segments.list_segments(self._folder) if int(path.stem) < size), default=0)
        found = first
        for line in segments.lines(self._folder, first):
            if line.index >= size:
                break
            if not line.is_whole or leaf_hash(line.leaf) != reader.tile(0, line.index >> 8, (line.index & 255) + 1)[-1]:
                return False
            self.segment, self.end, found = line.segment, line.offset + len(line.raw), line.index + 1
        return found == size

    def _rebuild(self, newest: Checkpoint) -> None:
        """Compute the tree and its tiles again from every leaf."""
        self.tree, self.tiles = CompactRange(), TileWriter(self._folder)
        try:
            for line in segments.lines(self._folder):
                if line.index >= newest.size or not line.is_whole:
                    break
                self.tree.append(leaf_hash(line.leaf), self.tiles.completed)
                self.segment, self.end = line.segment, line.offset + len(line.raw)
        except segments.MisplacedSegmentError as error:
            log.warning("segment_misplaced", problem=str(error))
        if self.tree.size != newest.size or self.tree.root() != newest.root:
            found = verify(self._folder, trust=Trust(self._trust.log))
            raise FailedPreconditionError(
                f"the audit log is damaged at record {found.first_bad_index}: {found.problem}; "
                f"keep {self._folder} as evidence and move it away to begin a new one"
            )
        self.tiles.write_full()

    def _take_tail(self, made_here: Callable[[Leaf], bool], still_ours: Callable[[], None]) -> None:
        size, taken = self.tree.size, set[bytes]()
        for line in segments.lines(self._folder, size):
            if line.index < size:
                continue
            if not line.is_whole or line.leaf in taken or not _is_leaf(line.leaf, made_here):
                log.warning("tail_cut", record=line.index, segment=line.segment.name, line=line.number)
                break
            taken.add(line.leaf)
            self.tree.append(leaf_hash(line.leaf), self.tiles.completed)
            self.segment, self.end = line.segment, line.offset + len(line.raw)
        later = [path for path in segments.list_segments(self._folder) if int(path.stem) > int(self.segment.stem)]
        still_ours()
        for path in later:
            path.unlink()
        self.has_news = self.tree.size > size


def _is_leaf(raw: bytes, made_here: Callable[[Leaf], bool]) -> bool:
    try:
        leaf = leaves.decode(raw)
        return leaves.canonical({**leaf.header, "sealed": leaf.sealed}) == raw and made_here(leaf)
    except (InvalidLeafError, SealedError, KeyError, TypeError, ValueError):
        return False


def _trust(folder: Path, signer: Signer) -> Trust:
    """Return the keys that may have signed the log: those of the installation, or the present one alone."""
    with suppress(InvalidNoteError):
        return load_trust(folder.parent)
    return Trust((signer.verifier,))
