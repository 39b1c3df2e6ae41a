"""Makes sure that every citation exists."""

from typing import ClassVar

from guardrail.checks.base import CLEAR, Answer, Decision, Finding, OnError, Origin
from guardrail.sentences import cited


class CitationsCheck:
    """Objects to a citation of a passage that was not given."""

    name: ClassVar[str] = "citations"
    version = "1"
    threshold = 1.0
    budget_ms = 1000.0
    on_error: OnError = "block"

    def run(self, subject: Answer, /) -> Finding:
        """Compare ids; exact, and only where passages were given or asked for."""
        if subject.origin in {Origin.TEMPLATE, Origin.NOTICE} or not (subject.sources or subject.require_grounding):
            return CLEAR
        unknown = [name for name in cited(subject.text) if name not in {source.id for source in subject.sources}]
        if not unknown:
            return CLEAR
        return Finding(1.0, Decision.REGENERATE, "citation_unknown", f"no passage has the id {', '.join(unknown)}")
