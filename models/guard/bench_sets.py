"""Draws the texts that measure the guard: what its measured weights never saw, and harmless traffic of every channel."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "injection"), str(HERE.parent / "safety")]

import channels  # noqa: E402
import pools  # noqa: E402
import texts  # noqa: E402
from pools import Item  # noqa: E402
from twins import Twins  # noqa: E402

from encoders.encoder import Vectors  # noqa: E402
from encoders.guard import Guard  # noqa: E402
from encoders.reading import read  # noqa: E402

Scores = NDArray[np.float64]
T = TypeVar("T")
_PER_SOURCE = 60


@dataclass(frozen=True)
class Read:
    """Texts cut into parts as in service, with the guard's log odds; text i owns the parts before `ends[i]`."""

    items: Sequence[Item]
    parts: Sequence[str]
    ends: Sequence[int]
    odds: Vectors

    def worst(self, values: NDArray[np.floating]) -> Scores:
        """Return the highest of every text's parts."""
        starts = [0, *self.ends[:-1]]
        return np.array([values[start:end].max() for start, end in zip(starts, self.ends, strict=True)], dtype=np.float64)


def judged(guard: Guard, items: Iterable[Item], channel: str) -> Read:
    """Read texts as the detectors do."""
    listed = list(items)
    groups = [read(item.text, channel).parts for item in listed]
    parts = [part for group in groups for part in group]
    return Read(listed, parts, np.cumsum([len(group) for group in groups]).tolist(), guard.encode(parts))


def calm_users(root: Path) -> Iterator[Item]:
    """Yield ordinary traffic that nothing is trained on, every second row of what is large."""
    for number, item in enumerate(pools.traffic(root, held_out=True)):
        if number % 2 == 0 or item.source in {"cyberseceval_benign", "mts_dialog"}:
            yield item


def other_users(root: Path) -> Iterator[Item]:
    """Yield attacks and look-alikes of sources, templates and halves that the measured weights never saw."""
    for part in ("train", "test"):
        by_source: dict[str, int] = {}
        for item in pools.attacks(root, part):
            number = by_source[item.source] = by_source.get(item.source, 0) + 1
            if item.source == "deepset" or (number % 4 == 0 and (item.source != "slabs" or part == "test")):
                yield item
    yield from _thinned(pools.multilingual(root, held_out=True), 2)
    yield from pools.in_the_wild(root, held_out=True)
    yield from _thinned(pools.written(root, held_out=True), 2)
    for number, item in enumerate(pools.unseen(root)):
        if item.source not in {"banking77", "bfcl multiple"} or number % 3 == 0:
            yield item


def _thinned(items: Iterable[T], step: int) -> Iterator[T]:
    return (item for number, item in enumerate(items) if number % step == 0)


def bounded(items: Iterable[Item], most: int = _PER_SOURCE) -> list[Item]:
    """Return at most so many items of every source."""
    count: dict[str, int] = {}
    kept = []
    for item in items:
        count[item.source] = count.get(item.source, 0) + 1
        if count[item.source] <= most:
            kept.append(item)
    return kept


def tool_attacks(root: Path) -> list[Item]:
    """Return tool results with orders of held-out templates, and of BIPIA categories never trained on."""
    written = Twins(HERE.parent / "injection" / "twins.yaml").texts("document_orders", 100, held_out=True)
    bipia = [item.text for item in pools.hidden(root, test=True)[1] if item.source == "bipia text"]
    return [
        *channels.poisoned_tool_items(root, written, "held-out templates in tool results", test=True),
        *channels.poisoned_tool_items(root, bipia * 3, "bipia text in tool results", test=True),
    ]


def moderation(root: Path) -> list[texts.Text]:
    """Return the half of the moderation set that the measured weights never saw."""
    return list(texts.moderation(root))[1::2]


def written_safety() -> list[texts.Text]:
    """Return texts of held-out templates of every category, and their twins."""
    return list(_thinned(texts.written(held_out=True), 2))


def read_all(guard: Guard, root: Path) -> dict[str, Read]:
    """Return every set, read and judged."""
    calm = [*calm_users(root), *(Item(row["text"][:600], False, "medquad answers") for row in _thinned(_answers(root), 80))]
    others: dict[str, tuple[Iterable[Item], str]] = {
        "calm_users": (calm, "user"),
        "other_users": (other_users(root), "user"),
        "documents": (bounded(channels.harmless_documents(root)), "document"),
        "hidden": (_thinned(channels.hidden_documents(root), 2), "document"),
        "tools": (bounded(channels.harmless_tool_items(root, test=True)), "tool"),
        "poisoned": (tool_attacks(root), "tool"),
        "moderation": ([Item(row.text, row.unsafe, row.source) for row in moderation(root)], "user"),
        "surge": (_thinned([Item(row.text, row.unsafe, row.source) for row in texts.surge(root)], 2), "user"),
        "written_safety": ([Item(row.text, row.unsafe, row.source) for row in written_safety()], "user"),
    }
    return {name: judged(guard, items, channel) for name, (items, channel) in others.items()}


def _answers(root: Path) -> Iterator[dict[str, str]]:
    return (row for number, row in enumerate(pools.rows(root, "retrieval/medquad/corpus.jsonl.gz")) if number % 2 == 1)
