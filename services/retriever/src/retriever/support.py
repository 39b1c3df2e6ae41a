"""The suite `compression` of `strata eval`: how much of what supports an answer is left when passages are shortened."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from encoders import Encoder
from knowledge.preparation import cut
from retriever import beir, metrics
from retriever.bench import EPOCH, document
from retriever.compression import Compress, compress, pieces_of
from retriever.fusion import Candidate
from retriever.pieces import tokens
from retriever.settings import RankingSettings
from retriever.windows import narrow

_RATIOS = (0.25, 0.5, 0.7)
# A sentence is kept when so much of it is: the two cut sentences at slightly different places.
_WHOLE = 0.9


@dataclass(frozen=True)
class _Case:
    """A question, the document that answers it, and ranges that each say all that is needed, as sets of sentences."""

    question: str
    title: str
    text: str
    evidence: list[list[tuple[int, int]]]


def compression(data: Path, *, options: dict[str, str]) -> dict[str, object]:
    """Score compression on questions whose documents have their evidence marked.

    Rows are SciFact's (`claim`, `abstract` as sentences, `rationale_sentences` as sets of their numbers) or
    `{query, text, evidence}`, where evidence is a list of pieces of the text. `window` in each row is
    one window of sentences of the same length instead. Options: `ratios`, `threads`.

    Raises:
        ValueError: Malformed input, named by file, row and field.
    """
    cases = list(_cases(data))
    scored = [case for case in cases if case is not None and case.evidence]
    encoder = Encoder.load(threads=int(options.get("threads", "2")))
    weights = RankingSettings().sentences
    rows: dict[str, object] = {}
    for ratio in [float(part) for part in options.get("ratios", "").split(",") if part] or _RATIOS:
        if not 0 < ratio <= 1:
            raise ValueError(f"option 'ratios': must be above 0 and at most 1, got {ratio}")
        measured, windows = [], []
        for case in scored:
            chunks = cut(document("case", case.title, case.text), encoder.identity.key(), EPOCH)
            candidates = [Candidate(chunk, 1.0, 0.0, 0.0) for chunk in chunks]
            left = compress(case.question, candidates, Compress(keep_ratio=ratio), encoder, encoder.count_tokens, weights)
            measured.append({**_kept(case, left.passages), "tokens_saved": 1 - left.after / left.before if left.before else 0.0})
            windows.append(_windowed(case, candidates, ratio, left.before, encoder))
        rows[str(ratio)] = {**metrics.summary(measured), "window": metrics.summary(windows)}
    return {
        "suite": "compression",
        "n": len(scored),
        "invalid": len(cases) - len(scored),
        "by_keep_ratio": rows,
        "versions": {"encoder": encoder.identity.key(), "weights": weights.model_dump()},
    }


def _windowed(case: _Case, candidates: Sequence[Candidate], ratio: float, before: int, encoder: Encoder) -> dict[str, float]:
    """Return the same for one window of sentences per chunk, of the same share of its words."""
    words = math.ceil(ratio * len(case.text.split()) / max(len(candidates), 1))
    passages = narrow(candidates, case.question, words)
    after = sum(tokens(passage.chunk.text, encoder.count_tokens) for passage in passages)
    return {**_kept(case, passages), "tokens_saved": 1 - after / before if before else 0.0}


def _kept(case: _Case, passages: Sequence[Candidate]) -> dict[str, float]:
    """Return the share of evidence sentences that are left, and whether one set of them is left as a whole."""
    there = np.zeros(len(case.text), dtype=np.bool_)
    for piece in (piece for candidate in passages for piece in pieces_of(candidate)):
        there[piece.start : piece.end] = True
    left = {place: bool(there[place[0] : place[1]].mean() >= _WHOLE) for places in case.evidence for place in places}
    whole = any(all(left[place] for place in places) for places in case.evidence)
    return {"evidence_kept": sum(left.values()) / len(left), "support_kept": float(whole)}


def _cases(data: Path) -> Iterator[_Case | None]:
    for where, row in beir.rows(data):
        if "claim" in row:
            yield _scifact(where, row)
            continue
        text = beir.text(where, row, "text")
        quotes = row.get("evidence")
        if not isinstance(quotes, list) or not all(isinstance(quote, str) and quote for quote in quotes):
            raise ValueError(f"{where}: field 'evidence' must be a list of texts, got {quotes!r}")
        places = [(text.find(quote), text.find(quote) + len(quote)) for quote in quotes]
        found = places and all(start >= 0 for start, _ in places)
        yield _Case(beir.text(where, row, "query"), str(row.get("title", "")), text, [places]) if found else None


def _scifact(where: str, row: Mapping[str, Any]) -> _Case:
    sentences, sets = row.get("abstract"), row.get("rationale_sentences")
    if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
        raise ValueError(f"{where}: field 'abstract' must be a list of texts, got {sentences!r}")
    if not isinstance(sets, list) or not all(isinstance(numbers, list) and numbers for numbers in sets):
        raise ValueError(f"{where}: field 'rationale_sentences' must be a list of lists of numbers, got {sets!r}")
    text, places = "", list[tuple[int, int]]()
    for sentence in (" ".join(part.split()) for part in sentences):
        text = f"{text} {sentence}" if text else sentence
        places.append((len(text) - len(sentence), len(text)))
    if any(not isinstance(number, int) or not 0 <= number < len(places) for numbers in sets for number in numbers):
        raise ValueError(f"{where}: field 'rationale_sentences' names a sentence that is not there: {sets!r}")
    return _Case(beir.text(where, dict(row), "claim"), str(row.get("title", "")), text, [[places[n] for n in numbers] for numbers in sets])
