"""Makes sure that every citation exists, and that what stands between quotation marks is what a passage says."""

from dataclasses import dataclass
from typing import ClassVar

from guardrail.checks.base import CLEAR, Answer, Decision, Finding, OnError, Origin
from guardrail.quoting import Quote, locate, quotes
from guardrail.sentences import cited


@dataclass(frozen=True)
class QuoteMatch:
    """Where a quotation stands, and where in which passage; `source_id` is empty when nowhere."""

    quote: Quote
    source_id: str = ""
    source_start: int = 0
    source_end: int = 0


class CitationsCheck:
    """Objects to a citation of a passage that was not given, and to a quotation that its passage does not hold."""

    name: ClassVar[str] = "citations"
    cheap: ClassVar[bool] = True
    version = "2"
    threshold = 1.0
    budget_ms = 1000.0
    on_error: OnError = "block"

    def run(self, subject: Answer, /) -> Finding:
        """Compare ids and words; exact, and only where passages were given or asked for."""
        if subject.origin in {Origin.TEMPLATE, Origin.NOTICE} or not (subject.sources or subject.require_grounding):
            return CLEAR
        unknown = [name for name in cited(subject.text) if name not in {source.id for source in subject.sources}]
        if unknown:
            return Finding(1.0, Decision.REGENERATE, "citation_unknown", f"no passage has the id {', '.join(unknown)}")
        matches = tuple(_matched(subject, quote) for quote in quotes(subject.text)) if subject.by_model else ()
        lost = [match for match in matches if not match.source_id]
        if not lost:
            return Finding(detail=matches)
        reason = f"{len(lost)} of {len(matches)} quotations are not what the passage says"
        return Finding(1.0, Decision.REGENERATE, "quote_unmatched", reason, matches)


def _matched(subject: Answer, quote: Quote) -> QuoteMatch:
    sentence = next((s for s in subject.sentences if s.start <= quote.start < s.end), None)
    names = sentence.citations if sentence is not None else ()
    # A quotation must stand where its sentence says; without a citation any passage will do.
    for source in [s for s in subject.sources if s.id in names] or subject.sources:
        if (found := locate(quote.text, source.text)) is not None:
            return QuoteMatch(quote, source.id, *found)
    return QuoteMatch(quote)
