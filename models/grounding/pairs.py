"""Reads claims with their passages from public sets, and makes near-copies with known faults from documents."""

import gzip
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from encoders.sentences import split_sentences

_NUMBER = re.compile(r"\b\d+(?:\.\d+)?\b")
_VERB = re.compile(r"\b(is|are|can|may|should|will|must|has|have|does|do)\b")


@dataclass(frozen=True)
class Pair:
    """A claim, what it should rest on, whether it does, and where the pair comes from."""

    claim: str
    passages: tuple[str, ...]
    supported: bool
    source: str


def rows(root: Path, name: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of one JSON lines file, packed or not."""
    path = root / name
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def cg2c(root: Path) -> Iterator[Pair]:
    """Yield FactCG's synthetic training pairs."""
    for row in islice(rows(root, "factuality/cg2c_train/train.jsonl.gz"), 0, None, 7):
        yield Pair(row["claim"], (row["doc"],), bool(row["label"]), "cg2c")


def public(root: Path) -> Iterator[Pair]:
    """Yield the development sets that hold human judgements."""
    for row in islice(rows(root, "factuality/wice/dev.jsonl.gz"), 0, None, 5):
        yield Pair(row["claim"], (" ".join(row["evidence"]),), row["label"] == "supported", "wice")
    for row in islice(rows(root, "factuality/scifact/dev.jsonl.gz"), 0, None, 4):
        yield Pair(row["claim"], (" ".join([row["title"], *row["abstract"]]),), row["label"] == "SUPPORT", "scifact")
    for row in islice(rows(root, "factuality/fever_symmetric/dev.jsonl.gz"), 0, None, 3):
        yield Pair(row["claim"], (row["evidence"],), row["label"] == "SUPPORTS", "fever_symmetric")
    for row in islice(rows(root, "factuality/begin_wow/dev.jsonl.gz"), 0, None, 2):
        yield Pair(row["response"], (row["knowledge"],), row["label"].lower().startswith("fully"), "begin_wow")
    for row in islice(rows(root, "factuality/factcheck_gpt/stance_dev.jsonl.gz"), 0, None, 8):
        yield Pair(row["claim"], (row["evidence"],), row["stance"].startswith("completely"), "factcheck_gpt")


def near_copies(root: Path, *, test: bool) -> Iterator[Pair]:
    """Yield sentences of documents, as they stand and with a number, negation, name or source changed."""
    chance = random.Random(3)
    documents = [row["text"] for number, row in enumerate(rows(root, "retrieval/medquad/corpus.jsonl.gz")) if number % 160 == test]
    documents += [row["text"] for number, row in enumerate(rows(root, "retrieval/support_policy_docs/corpus.jsonl.gz"))
                  if (number % 4 == 0) == test]  # fmt: skip
    source = "near_copies"
    for place, document in enumerate(documents):
        passage = document[:2500]
        sentences = [part for part in split_sentences(passage) if 6 <= len(part.split()) <= 45]
        if len(sentences) < 2:
            continue
        chosen = chance.choice(sentences)
        passages = (documents[(place + 1) % len(documents)][:800], passage)
        yield Pair(f"{chosen} [2]", passages, True, f"{source}: copy")
        yield Pair(_shortened(chosen), passages, True, f"{source}: shortened")
        numbered = [part for part in sentences if _NUMBER.search(part)]
        if numbered:
            part = chance.choice(numbered)
            changed = _NUMBER.sub(_other_number(passage, chance), part, count=1)
            yield Pair(part, passages, True, f"{source}: copy")
            yield Pair(changed, passages, False, f"{source}: number")
        elif place % 3 == 0:
            invented = f"{chosen.rstrip('.')} for {chance.randint(2, 40)} {chance.choice(['days', 'mg', 'percent'])}."
            yield Pair(invented, (passage,), False, f"{source}: number")
        if _VERB.search(chosen) and " not " not in chosen and place % 2:
            yield Pair(_VERB.sub(r"\1 not", chosen, count=1), passages, False, f"{source}: negation")
        foreign = split_sentences(documents[(place + 7) % len(documents)])
        yield Pair(max(foreign[:4], key=len), passages, False, f"{source}: other document")


def _shortened(sentence: str) -> str:
    return re.split(r", (?:and|which|but|such as) |; | \(", sentence)[0].rstrip(",. ") + "."


def _other_number(passage: str, chance: random.Random) -> str:
    while True:
        found = str(chance.randint(2, 99))
        if not re.search(rf"\b{found}\b", passage):
            return found
