"""Finds personal data in an answer that neither the client nor the documents brought in."""

from collections.abc import Collection
from typing import ClassVar

from guardrail.checks.base import CLEAR, Answer, Decision, Finding, OnError, Origin
from guardrail.personal.detection import Detector, Mention
from guardrail.personal.pseudonyms import TOKEN


class PiiLeakCheck:
    """Demands redaction of what a model wrote on its own; the detail holds the mentions."""

    name: ClassVar[str] = "pii_leak"
    version = "presidio-2.2/rules-3"
    on_error: OnError = "block"

    def __init__(self, detector: Detector, types: Collection[str], budget_ms: float) -> None:
        """Object to mentions of `types` alone: a name that a model knows is not a leak, a telephone number is."""
        self._detector = detector
        self._types = frozenset(types)
        self.threshold = detector.policy.threshold
        self.budget_ms = budget_ms

    def run(self, subject: Answer, /) -> Finding:
        """Look at texts of a model and at quoted passages; a template holds what its tools were allowed to read."""
        if subject.origin in {Origin.TEMPLATE, Origin.NOTICE} or not subject.text:
            return CLEAR
        known = " ".join([*subject.vault.values(), *(source.text for source in subject.sources)]).casefold()
        leaked = tuple(m for m in self._detector.detect(subject.text) if self._is_leak(subject.text, m, known))
        if not leaked:
            return CLEAR
        kinds = sorted({mention.type for mention in leaked})
        return Finding(1.0, Decision.REDACT, "personal_data_in_answer", f"{len(leaked)} found: {', '.join(kinds).lower()}", leaked)

    def _is_leak(self, text: str, mention: Mention, known: str) -> bool:
        value = text[mention.start : mention.end]
        return mention.type in self._types and not TOKEN.search(value) and value.casefold() not in known
