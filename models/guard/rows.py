"""Draws the rows that the guard encoder is tuned on: texts of both attack heads and of the safety heads, one label per task."""

import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "injection"), str(HERE.parent / "safety")]

import channels  # noqa: E402
import pools  # noqa: E402
import texts  # noqa: E402

from encoders.guard import TASKS, UNKNOWN  # noqa: E402
from encoders.normalise import normalise  # noqa: E402

# What is left out where generalisation is measured: whole sources, and every other text of the moderation set.
LEFT_OUT = frozenset({"deepset", "neuralchemy_core", "surge"})
_MODERATION = "openai_moderation"
# Shares of what is large and easy; everything else is taken whole.
_USER = {
    "slabs": 0.4, "neuralchemy_core": 0.6, "clinc150": 0.2, "bitext": 0.1, "hwu64": 0.2, "mts_dialog": 0.3, "desks": 0.4, "mmlu_pro": 0.3,
    "banking77": 0.4, "medquad": 0.4, "yanismiraoui": 0.5, "written user_harmless": 0.75, "written jailbreaks": 0.6,
    "written jailbreak twins": 0.7,
}  # fmt: skip
_DATA = {
    "medquad": 0.3, "scifact": 0.4, "mts_notes": 0.4, "github_policy": 0.4, "clinc150": 0.25, "slabs": 0.3, "neuralchemy_core": 0.3,
    "written documents": 0.5, "written orders": 0.4, "bipia table": 0.4, "bipia code": 0.4, "advbench": 0.4, "ifeval": 0.6,
    "tau2 orders": 0.25, "tau2 users": 0.25, "tau2 products": 0.15, "bipia tables": 0.3,
}  # fmt: skip
_SAFETY = {
    "davidson": 0.45, "written twins": 0.7, "written unsafe_request": 0.6, "written self_harm": 0.8, "bold": 0.5, "bbq": 0.5,
    "medquad answers": 0.3, "cyberseceval": 0.0, "written violence": 0.9, "written trigger words": 0.0, "written documents": 0.0,
}  # fmt: skip
_TRAFFIC = frozenset({"clinc150", "bitext", "hwu64", "mts_dialog", "desks", "mmlu_pro", "medquad", "banking77", "cyberseceval_benign"})
_JOINED = 0.15
_DATA_BOUND = 11_000


@dataclass(frozen=True)
class Row:
    """A text with 1, 0 or unknown for every task; `left_out` where the first weights, those that are measured, never saw it."""

    text: str
    labels: tuple[float, ...]
    source: str
    left_out: bool = False


def labelled(**known: float) -> tuple[float, ...]:
    """Return the labels of all tasks; those not named are unknown."""
    return tuple(known.get(task, UNKNOWN) for task in TASKS)


_CALM = dict.fromkeys((*texts.CATEGORIES, "unsafe"), 0.0)


def user_rows(root: Path) -> Iterator[Row]:
    """Yield texts of users."""
    found = [
        *pools.multilingual(root, held_out=False),
        *pools.in_the_wild(root, held_out=False),
        *pools.written(root, held_out=False),
        *pools.attacks(root, "train"),
        *pools.traffic(root, held_out=False),
        *pools.requests(root),
        *(pools.Item(text, False, "seeds") for text in pools.seed_sentences("harmless", 250)),
    ]
    held_out = [*pools.in_the_wild(root, held_out=True), *pools.written(root, held_out=True)]
    for number, item in enumerate([*found, *held_out]):
        calm = not item.attack and (item.source in _TRAFFIC or item.source.startswith("written") or item.source == "seeds")
        safety = _CALM if calm and not texts.about_oneself(item.text) else {}
        yield Row(item.text, labelled(user=float(item.attack), **safety), item.source, item.source in LEFT_OUT or number >= len(found))


def data_rows(root: Path) -> Iterator[Row]:
    """Yield sentences of documents and tool results."""
    found = channels.sentences(root)
    for number, item in enumerate([*found, *channels.held_out_sentences()]):
        safety = _CALM if not item.attack and item.source in {"medquad", "scifact", "github_policy", "written documents"} else {}
        yield Row(item.text, labelled(data=float(item.attack), **safety), item.source, item.source in LEFT_OUT or number >= len(found))


def safety_rows(root: Path) -> Iterator[Row]:
    """Yield texts with categories; of the moderation set every other one is left out."""
    seen, found = 0, texts.training(root)
    for number, text in enumerate([*found, *texts.written(held_out=True)]):
        if text.source in _TRAFFIC:
            continue
        seen += text.source == _MODERATION
        out = seen % 2 == 0 if text.source == _MODERATION else text.source in LEFT_OUT or number >= len(found)
        labels = {name: float(value) for name, value in text.labels.items() if value is not None}
        row = Row(text.text, labelled(**labels, unsafe=float(text.unsafe)), text.source, out)
        yield from [row, row] if text.source == _MODERATION else [row]


def _thinned(rows: Iterator[Row], shares: dict[str, float], chance: random.Random) -> list[Row]:
    kept: dict[str, Row] = {}
    for number, row in enumerate(rows):
        if chance.random() < shares.get(row.source, 1.0):
            text = normalise(row.text).everything()[:900]
            kept.setdefault(f"{number if row.source == _MODERATION else ''}{text}", replace(row, text=text))
    return list(kept.values())


def draw(root: Path) -> list[Row]:
    """Return all rows in random order, some joined with ordinary sentences so that attacks also stand among other words."""
    chance = random.Random(7)
    users = _thinned(user_rows(root), _USER, chance)
    data = _thinned(data_rows(root), _DATA, chance)
    chance.shuffle(data)
    safety = _thinned(safety_rows(root), _SAFETY, chance)
    calm = [row.text for row in users if row.source in _TRAFFIC and 20 < len(row.text) < 300]
    rows = [_joined(row, calm, chance) for row in users] + data[:_DATA_BOUND] + safety
    chance.shuffle(rows)
    return rows


def _joined(row: Row, calm: Sequence[str], chance: random.Random) -> Row:
    if len(row.text) > 300 or chance.random() >= _JOINED:
        return row
    other, mark = chance.choice(calm), chance.choice((" ", "\n", ". ", " - "))
    return replace(row, text=f"{other}{mark}{row.text}" if chance.random() < 0.6 else f"{row.text}{mark}{other}")
