"""Recomputes the whole chain from the files alone, with no service running."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from audit.head import Head, InvalidHeadError, Keys, load_keys, read_head
from audit.segments import BrokenChainError, Located, list_segments, read


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of the log found; `first_bad_index` means nothing while it is intact."""

    intact: bool
    size: int
    head: str
    first_bad_index: int
    problem: str


def verify(
    folder: Path, *, keys: Keys | None = None, witness: Head | None = None, each: Callable[[Located], None] | None = None
) -> Verification:
    """Check every entry of the log in `folder`, and its end against the signed head and a `witness` who saw it.

    The keys that may have signed the head default to those in `folder`'s state folder; `each` is shown every good entry.
    """
    if not folder.is_dir():
        return _bad(Head(), 0, f"there is no log at {folder}")
    head, head_problem = Head(), ""
    try:
        # Read before the entries, so that what is written meanwhile lies beyond it.
        head = read_head(folder, keys if keys is not None else load_keys(folder.parent))
    except InvalidHeadError as error:
        head_problem = str(error)
    claims = [claim for claim in (head, witness) if claim is not None and claim.size > 0]
    promised = max((claim.size for claim in claims), default=0)
    found = Head()
    try:
        for located in read(folder):
            found = Head(located.entry.index + 1, located.entry.hash)
            if any(claim.size == found.size and claim.hash != found.hash for claim in claims):
                where = f"{located.segment.name} line {located.line}, record {located.entry.index}"
                return _bad(found, located.entry.index, f"{where}: its hash is not the one that was signed")
            if each is not None:
                each(located)
    except BrokenChainError as error:
        # Nothing beyond the promised length was ever acknowledged.
        if head_problem or error.index < promised or not error.torn:
            return _bad(found, error.index, str(error))
    if found.size < promised:
        where = next((segment.name for segment in reversed(list_segments(folder))), folder.name)
        return _bad(found, found.size, f"{where}: the log ends after {found.size} records, {promised} were written; the end was cut off")
    if head_problem:
        return _bad(found, found.size, head_problem)
    return Verification(intact=True, size=found.size, head=found.hash, first_bad_index=0, problem="")


def _bad(found: Head, index: int, problem: str) -> Verification:
    return Verification(intact=False, size=found.size, head=found.hash, first_bad_index=index, problem=problem)
