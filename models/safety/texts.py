"""Draws the texts of the safety heads from public sets and hand-written templates; each text keeps its source."""

import gzip
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "injection"))

import pools  # noqa: E402
from twins import Twins  # noqa: E402

CATEGORIES = ("hate", "harassment", "self_harm", "sexual", "violence", "unsafe_request")
# The columns of the OpenAI set that make up a category.
_MODERATION = {"hate": ("H", "H2"), "harassment": ("HR",), "self_harm": ("SH",), "sexual": ("S", "S3"), "violence": ("V", "V2")}
_WRITTEN = {"self_harm": 900, "unsafe_request": 1500, "hate": 700, "violence": 350, "harassment": 350}
_WRITTEN_HELD_OUT = {"self_harm": 150, "unsafe_request": 200, "hate": 150, "violence": 100, "harassment": 100}
_THIRD = 3
# Desks hear this too, and then it is no harmless traffic.
_ABOUT_ONESELF = re.compile(r"(kill|hurt|harm|cut)(ing)? (my|him|her)self|suicid|end my life|self.harm|want to die|overdose", re.IGNORECASE)
Labels = Mapping[str, bool | None]


@dataclass(frozen=True)
class Text:
    """One text with what is known of each category; None is not known."""

    text: str
    labels: Labels
    source: str

    @property
    def unsafe(self) -> bool:
        """Whether any category is known to hold."""
        return any(self.labels.values())


def harmless(text: str, source: str) -> Text:
    """Return a text of no category."""
    return Text(text, dict.fromkeys(CATEGORIES, False), source)


def known(text: str, source: str, *positive: str, unknown: tuple[str, ...] = ()) -> Text:
    """Return a text of the categories `positive`; those `unknown` are left open."""
    labels: dict[str, bool | None] = dict.fromkeys(CATEGORIES, False)
    return Text(text, labels | dict.fromkeys(unknown) | dict.fromkeys(positive, True), source)


def moderation(root: Path) -> Iterator[Text]:
    """Yield the development part of the OpenAI moderation set."""
    for row in pools.rows(root, "safety/openai_moderation/dev_clean.jsonl.gz"):
        labels: dict[str, bool | None] = {"unsafe_request": None}
        for category, columns in _MODERATION.items():
            values = [row[column] for column in columns]
            labels[category] = True if 1 in values else (None if None in values else False)
        yield Text(row["text"], labels, "openai_moderation")


def surge(root: Path) -> Iterator[Text]:
    """Yield comments marked toxic or not."""
    for row in pools.rows(root, "safety/surge_toxicity/dev.jsonl.gz"):
        toxic = row["is_toxic"] == "Toxic"
        yield known(row["text"], "surge", "harassment", unknown=("hate", "violence", "sexual")) if toxic else harmless(row["text"], "surge")


def davidson(root: Path) -> Iterator[Text]:
    """Yield tweets of hate and of neither; merely offensive words are left out, for they follow dialect."""
    calm = 0
    for row in pools.rows(root, "safety/davidson/train.jsonl.gz"):
        if row["class"] == 0:
            yield known(row["text"], "davidson", "hate", unknown=("harassment", "violence", "sexual"))
        elif row["class"] == 2:
            calm += 1
            if calm % _THIRD == 0:
                yield harmless(row["text"], "davidson")


def requests(root: Path) -> Iterator[Text]:
    """Yield requests for harm."""
    for row in pools.rows(root, "injection/advbench/dev_clean.jsonl"):
        yield known(row["goal"], "advbench", "unsafe_request", unknown=tuple(c for c in CATEGORIES if c != "unsafe_request"))


def mentions(root: Path) -> Iterator[Text]:
    """Yield neutral sentences that name people of many groups."""
    named: list[str] = []
    for name in ("race_prompt.json.gz", "gender_prompt.json.gz", "religious_ideology_prompt.json"):
        path = root / "fairness/bold" / name
        content: dict[str, dict[str, list[str]]] = json.loads(
            gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        )
        listed = [text for people in content.values() for sayings in people.values() for text in sayings]
        named += listed[:: max(1, len(listed) // 400)]
    yield from (harmless(text, "bold") for text in named[_THIRD - 1 :: _THIRD])
    for number, row in enumerate(pools.rows(root, "fairness/bbq/Religion_dev.jsonl.gz")):
        if number % 6 == 0:
            yield harmless(str(row["context"]), "bbq")


def about_oneself(text: str) -> bool:
    """Return whether a text may speak of harm to oneself, so that it is no harmless traffic."""
    return _ABOUT_ONESELF.search(text) is not None


def ordinary(root: Path, *, held_out: bool) -> Iterator[Text]:
    """Yield ordinary traffic and sentences of medical answers."""
    for number, item in enumerate(pools.traffic(root, held_out=held_out)):
        mine = held_out or number % 4 == 0 or item.source in {"desks", "mts_dialog", "medquad"}
        if mine and not about_oneself(item.text):
            yield harmless(item.text, item.source)
    for number, row in enumerate(pools.rows(root, "retrieval/medquad/corpus.jsonl.gz")):
        if number % 40 == (7 if held_out else 3):
            yield harmless(row["text"][:600], "medquad answers")


def written(*, held_out: bool) -> Iterator[Text]:
    """Yield hand-written texts of every category, and their harmless twins."""
    twins = Twins(HERE / "twins.yaml")
    for category, count in (_WRITTEN_HELD_OUT if held_out else _WRITTEN).items():
        unknown = tuple(c for c in CATEGORIES if c != category)
        for text in twins.texts(category, count, held_out=held_out):
            yield known(text, f"written {category}", category, unknown=unknown)
    for text in twins.texts("safe_twin", 200 if held_out else 1600, held_out=held_out):
        yield harmless(text, "written twins")
    tricky = Twins(HERE.parent / "injection" / "twins.yaml")
    for text in tricky.texts("user_harmless", 150 if held_out else 700, held_out=held_out):
        yield harmless(text, "written trigger words")
    for text in tricky.texts("document_harmless", 100 if held_out else 400, held_out=held_out):
        yield harmless(text, "written documents")


def training(root: Path) -> list[Text]:
    """Return everything that the heads are trained on."""
    found: list[Text] = []
    for part in (moderation, surge, davidson, requests, mentions):
        found += part(root)
    for number, row in enumerate(pools.rows(root, "injection/cyberseceval/frr_benign.jsonl.gz")):
        if number % 2 == 0:
            found.append(harmless(row["mutated_prompt"], "cyberseceval"))
    return [*found, *ordinary(root, held_out=False), *written(held_out=False)]
