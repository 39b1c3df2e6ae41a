"""Reads claims with their passages from public sets, and makes near-copies with known faults from documents."""

import gzip
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import edits

from encoders.sentences import split_sentences

PUBLIC = ("wice", "scifact", "fever_symmetric", "begin_wow", "factcheck_gpt")
_WHO = re.compile(r"^(?:Who|Which \w+|Which of the \w+)\s+(.+?)\??$")


@dataclass(frozen=True)
class Pair:
    """A claim, what it should rest on, whether it does, the set, and the group that must not be split."""

    claim: str
    passages: tuple[str, ...]
    supported: bool
    source: str
    group: str = ""

    @property
    def held_out(self) -> bool:
        """Whether the pair belongs to the quarter of its set that no weights see."""
        return crc32(f"{self.source}|{self.group}".encode()) % 4 == 0


def rows(root: Path, name: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of one JSON lines file, packed or not."""
    path = root / name
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def cg2c(root: Path) -> Iterator[Pair]:
    """Yield FactCG's synthetic training pairs."""
    for row in rows(root, "factuality/cg2c_train/train.jsonl.gz"):
        yield Pair(row["claim"], (row["doc"],), bool(row["label"]), "cg2c", row["claim"])


def public(root: Path) -> Iterator[Pair]:
    """Yield the development sets that hold human judgements; a group is what shares a claim or a text."""
    folder = root / "factuality"
    for row in rows(folder, "wice/dev.jsonl.gz"):
        yield Pair(row["claim"], (" ".join(row["evidence"]),), row["label"] == "supported", "wice", str(row["claim"]))
    for row in rows(folder, "scifact/dev.jsonl.gz"):
        yield Pair(row["claim"], (" ".join([row["title"], *row["abstract"]]),), row["label"] == "SUPPORT", "scifact", str(row["doc_id"]))
    for row in rows(folder, "fever_symmetric/dev.jsonl.gz"):
        # Each claim stands beside two texts and each text beside two claims, so that words alone decide nothing.
        yield Pair(row["claim"], (row["evidence"],), row["label"] == "SUPPORTS", "fever_symmetric", _subject(row["evidence"], row["claim"]))
    for row in rows(folder, "begin_wow/dev.jsonl.gz"):
        supported = row["label"].lower().startswith("fully")
        yield Pair(row["response"], (row["knowledge"],), supported, "begin_wow", row["knowledge"])
    for row in rows(folder, "factcheck_gpt/stance_dev.jsonl.gz"):
        yield Pair(row["claim"], (row["evidence"],), row["stance"].startswith("completely"), "factcheck_gpt", row["claim"])


def _subject(evidence: str, claim: str) -> str:
    """Return the first name in the claim, which the four members of a quadruple share."""
    del evidence
    return " ".join(claim.split()[:2]).lower()


def who(root: Path, most: int) -> Iterator[Pair]:
    """Yield statements that answer BBQ's questions, right and wrong, over contexts that decide them and that do not."""
    for name in ("Age", "Nationality", "Religion", "Physical_appearance", "Disability_status"):
        chosen = [r for r in rows(root, f"fairness/bbq/{name}_dev.jsonl.gz") if crc32(str(r["example_id"]).encode()) % 7 == 0]
        for row in chosen[:most]:
            match = _WHO.match(row["question"])
            answers = [(row[f"ans{i}"], i == row["label"]) for i in range(3) if row["answer_info"][f"ans{i}"][1] != "unknown"]
            if match is None or len(answers) != 2:
                continue
            answer, right = answers[row["example_id"] % 2]
            yield Pair(edits.tidy(f"{answer} {match[1]}"), (row["context"],), right, "who", row["context"][:60])


def papers(root: Path) -> Iterator[Pair]:
    """Yield conclusions of PubMed articles over their own abstracts and over those of others."""
    texts = {row["_id"]: row["text"] for row in rows(root, "retrieval/pubmedqa_l/corpus.jsonl.gz")}
    chance = random.Random(11)
    for row in rows(root, "retrieval/pubmedqa_l/queries.jsonl.gz"):
        own = row["_id"].lstrip("q")
        sentences = [s for s in split_sentences(row["metadata"]["long_answer"]) if 8 <= len(s.split()) <= 40]
        if own not in texts or not sentences:
            continue
        claim = sentences[-1] if chance.random() < 0.5 else sentences[0]
        fault = chance.choice([edits.opposite, edits.negated])(claim, {}, chance)
        if chance.random() < 0.5 or fault is None:
            yield Pair(claim, (texts[own],), True, "papers", own)
        else:
            yield Pair(fault, (texts[own],), False, "papers", own)


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
        pool = {"numbers": re.findall(r"\b\d+\b", passage)}
        yield Pair(f"{chosen} [2]", passages, True, f"{source}: copy")
        yield Pair(re.split(r", (?:and|which|but|such as) |; | \(", chosen)[0].rstrip(",. ") + ".", passages, True, f"{source}: shortened")
        numbered = [part for part in sentences if re.search(r"\b\d+\b", part)]
        if numbered:
            part = chance.choice(numbered)
            yield Pair(part, passages, True, f"{source}: copy")
            if changed := edits.other_number(part, pool, chance):
                yield Pair(changed, passages, False, f"{source}: number")
        elif place % 3 == 0:
            invented = f"{chosen.rstrip('.')} for {chance.randint(2, 40)} {chance.choice(['days', 'mg', 'percent'])}."
            yield Pair(invented, (passage,), False, f"{source}: number")
        for name in ("negation", "stronger", "opposite"):
            changed = edits.FAULTS[name](chosen, pool, chance)
            if changed and (place % 2 or name != "negation"):
                yield Pair(changed, passages, False, f"{source}: {name}")
        foreign = split_sentences(documents[(place + 7) % len(documents)])
        yield Pair(max(foreign[:4], key=len), passages, False, f"{source}: other document")
