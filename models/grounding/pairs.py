"""Reads claims with their passages from public sets, and makes near-copies with known faults from documents."""

import gzip
import json
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
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

    @property
    def spared(self) -> bool:
        """Whether the pair belongs to the third of the rest that a second model does not see, so that more rows weigh a model."""
        return self.source in PUBLIC and not self.held_out and crc32(f"fold|{self.source}|{self.group}".encode()) % 3 == 0


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


def public(root: Path) -> list[Pair]:
    """Return the development sets that hold human judgements; a group is what shares a claim or a text."""
    return linked(_public(root))


def _public(root: Path) -> Iterator[Pair]:
    folder = root / "factuality"
    for row in rows(folder, "wice/dev.jsonl.gz"):
        yield Pair(row["claim"], (" ".join(row["evidence"]),), row["label"] == "supported", "wice")
    for row in rows(folder, "scifact/dev.jsonl.gz"):
        yield Pair(row["claim"], (" ".join([row["title"], *row["abstract"]]),), row["label"] == "SUPPORT", "scifact", str(row["doc_id"]))
    for row in rows(folder, "fever_symmetric/dev.jsonl.gz"):
        # Each claim stands beside two texts and each text beside two claims, so that words alone decide nothing;
        # the first words of the claim name the subject that all four share.
        subject = " ".join(row["claim"].split()[:2]).lower()
        yield Pair(row["claim"], (row["evidence"],), row["label"] == "SUPPORTS", "fever_symmetric", subject)
    for row in rows(folder, "begin_wow/dev.jsonl.gz"):
        yield Pair(row["response"], (row["knowledge"],), row["label"].lower().startswith("fully"), "begin_wow")
    for row in rows(folder, "factcheck_gpt/stance_dev.jsonl.gz"):
        yield Pair(row["claim"], (row["evidence"],), row["stance"].startswith("completely"), "factcheck_gpt")


def linked(pairs: Iterable[Pair]) -> list[Pair]:
    """Return pairs whose group is the first claim of all that hang together by a claim, a text or their own group."""
    found, above = list(pairs), dict[str, str]()

    def top(key: str) -> str:
        while (higher := above.setdefault(key, key)) != key:
            key = higher
        return key

    for pair in found:
        keys = [pair.claim.lower(), *(text.lower() for text in pair.passages), *([f"{pair.source}|{pair.group}"] if pair.group else [])]
        tops = sorted(top(key) for key in keys)
        above.update(dict.fromkeys(tops, tops[0]))
    return [replace(pair, group=top(pair.claim.lower())) for pair in found]


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


def beliefs(root: Path) -> Iterator[Pair]:
    """Yield true and false answers to a question of TruthfulQA, each over other true answers to it."""
    chance = random.Random(4)
    for row in json.loads(gzip.decompress((root / "factuality/truthfulqa/mc_task.json.gz").read_bytes())):
        answers = row["mc2_targets"].items()
        right = [text for text, good in answers if good and "comment" not in text]
        wrong = [text for text, good in answers if not good]
        chance.shuffle(right)
        chance.shuffle(wrong)
        for own, false in list(zip(right, wrong, strict=False))[: 2 if len(right) > 1 else 0]:
            others = [text for text in right if text != own]
            evidence = (" ".join(text.rstrip(".") + "." for text in chance.sample(others, min(3, len(others)))),)
            yield Pair(own, evidence, True, "beliefs", row["question"])
            yield Pair(false, evidence, False, "beliefs", row["question"])


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
