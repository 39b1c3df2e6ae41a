"""Passages by number: those that a text cites, and answers that are nothing but passages."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator import notices
from strata.guardrail.v1.guardrail_service_pb2 import Passage
from strata.orchestrator.v1.orchestrator_events_pb2 import Citation
from strata.retriever.v1.retriever_service_pb2 import Span

_NUMBERS = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")
_MOST_QUOTES = 3
Numbered = Mapping[str, Any]


def number(items: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return retrieved items with their citation numbers from 1."""
    return [{**item, "n": position} for position, item in enumerate(items, start=1)]


def to_passages(passages: Sequence[Numbered]) -> list[Passage]:
    """Return the passages as guardrail reads them."""
    return [
        Passage(
            id=str(p["n"]),
            text=p["text"],
            title=p["title"],
            version=p["version"],
            document_id=p.get("document_id", ""),
            effective_from=p.get("date", "")[:10],
        )
        for p in passages
    ]


def cited(text: str, passages: Sequence[Numbered]) -> list[Citation]:
    """Return the citations of a text in the order of their first mention; numbers without a passage are none."""
    by_number = {str(p["n"]): p for p in passages}
    mentioned = dict.fromkeys(name.strip() for group in _NUMBERS.findall(text) for name in group.split(","))
    return [_citation(by_number[name]) for name in mentioned if name in by_number]


def extract(passages: Sequence[Numbered]) -> str:
    """Return an answer that quotes the best passages word for word and says that it does so."""
    quotes = [f'"{p["text"]}" [{p["n"]}]' for p in passages[:_MOST_QUOTES]]
    return "\n\n".join([notices.EXTRACT, *quotes])


def _citation(passage: Numbered) -> Citation:
    return Citation(
        id=str(passage["n"]),
        title=passage["title"],
        version=passage["version"],
        date=passage["date"],
        quote=passage["text"],
        document_id=passage["document_id"],
        source=passage["source"],
        kind=passage["kind"],
        # Results are kept as JSON, in which whole numbers come back as floats.
        spans=[Span(start=int(span["start"]), end=int(span["end"])) for span in passage.get("spans", ())],
        document_sha256=passage.get("document_sha256", ""),
    )
