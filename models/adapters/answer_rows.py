"""Sentences, neighbours and passages: what both answer adapters build their rows from."""

import datetime as dt
import math
import random
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from rows import ABSTAIN, Row, words

from knowledge import schema
from knowledge.preparation import cut
from retriever.fusion import Candidate
from retriever.windows import narrow

_STOP = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "can",
        "do",
        "does",
        "for",
        "from",
        "have",
        "how",
        "i",
        "in",
        "is",
        "it",
        "my",
        "of",
        "on",
        "or",
        "that",
        "the",
        "this",
        "to",
        "was",
        "what",
        "when",
        "which",
        "who",
        "will",
        "with",
        "you",
        "your",
        "about",
        "information",
        "there",
        "their",
        "they",
        "these",
        "if",
        "not",
        "may",
        "also",
        "any",
    ]
)
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|Dr|Mr|Mrs|vs|U\.S|etc|No|St|approx|Fig)\.|\b[A-Z]\.)$")


@dataclass(frozen=True)
class Document:
    """A short text with a title, the subject that it is about, and its facet."""

    id: str
    title: str
    text: str
    subject: str
    facet: str


def sentences(text: str) -> list[str]:
    """Split prose into sentences, keeping common abbreviations whole."""
    found: list[str] = []
    for piece in re.split(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(])", re.sub(r"\s+", " ", text).strip()):
        if found and _ABBREVIATION.search(found[-1]):
            found[-1] = f"{found[-1]} {piece}"
        else:
            found.append(piece)
    return found


def content(text: str) -> set[str]:
    """Return the words of `text` that carry meaning."""
    return {word for word in words(text) if word not in _STOP and len(word) > 1}


def cite(picked: list[str], number: int) -> str:
    """Join sentences, each ending in the number of its passage."""
    return " ".join(f"{sentence.strip().rstrip('.!?;: ')} [{number}]." for sentence in picked)


# What the workflows ask retriever for: `window_words` and the most chunks of one document.
WINDOW_WORDS, CHUNKS_PER_DOCUMENT = 45, 2
_NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def served(question: str, documents: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Return (document id, title, window) of documents (id, title, text) as retriever would narrow them for the question."""
    candidates = []
    for name, title, text in documents:
        document = schema.Document("training", schema.Kind.ANCHORED, name, title, text, effective_from=_NOW)
        candidates += [Candidate(chunk, 0.0, 0.0, 0.0) for chunk in cut(document, "", _NOW)[:CHUNKS_PER_DOCUMENT]]
    return [(c.chunk.document_id, c.chunk.title, c.chunk.text) for c in narrow(candidates, question, WINDOW_WORDS)]


class Neighbours:
    """Find the documents whose titles share rare words."""

    def __init__(self, documents: list[Document]) -> None:
        self._documents = documents
        self._words = [content(document.title) for document in documents]
        counts = Counter(word for title in self._words for word in title)
        self._weight = {word: math.log(1 + len(documents) / count) for word, count in counts.items()}
        self._holders: dict[str, list[int]] = {}
        for index, title in enumerate(self._words):
            for word in title:
                self._holders.setdefault(word, []).append(index)

    def near(self, document: Document, *, same_subject: bool, limit: int = 12) -> list[Document]:
        """Return the most similar documents, of the same subject or of others only."""
        scores: Counter[int] = Counter()
        for word in content(document.title):
            for index in self._holders.get(word, [])[:400]:
                scores[index] += self._weight[word]  # type: ignore[assignment]
        ranked = (self._documents[index] for index, _ in scores.most_common(limit * 12))
        fitting = [d for d in ranked if d.id != document.id and (d.subject == document.subject) is same_subject]
        return fitting[:limit]


def assemble(
    *,
    key: str,
    source: str,
    group: str,
    question: str,
    gold: tuple[str, str] | None,
    answer: list[str],
    distractors: list[tuple[str, str]],
    rng: random.Random,
) -> Row:
    """Shuffle the gold (title, text) among distractors and write the reply; without gold it abstains."""
    shown = ([gold] if gold else []) + distractors
    rng.shuffle(shown)
    passages: list[dict[str, Any]] = [
        {"n": n, "title": title, "text": text, "version": "1", "date": "2026-01-01"} for n, (title, text) in enumerate(shown, start=1)
    ]
    number = shown.index(gold) + 1 if gold else 0
    return Row(
        id=key,
        source=source,
        group=group,
        variables={"question": question, "passages": passages},
        target=cite(answer, number) if gold else ABSTAIN,
        gold=[number] if gold else [],
    )
