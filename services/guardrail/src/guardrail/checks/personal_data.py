"""Finds the personal data of a conversation."""

from typing import ClassVar

from guardrail.checks.base import CLEAR, Conversation, Decision, Finding, OnError
from guardrail.personal.detection import Detector, everywhere


class PersonalDataCheck:
    """Demands redaction where a detector finds something; the detail holds the mentions of each piece."""

    name: ClassVar[str] = "personal_data"
    version = "presidio-2.2/rules-1"
    on_error: OnError = "block"

    def __init__(self, detector: Detector, budget_ms: float) -> None:
        """Use `detector`, whose policy holds the threshold."""
        self._detector = detector
        self.threshold = detector.policy.threshold
        self.budget_ms = budget_ms

    def run(self, subject: Conversation, /) -> Finding:
        """Return the mentions of every piece, in order."""
        texts = [piece.text for piece in subject.pieces]
        mentions = tuple(tuple(found) for found in everywhere(texts, [self._detector.detect(text) for text in texts]))
        total = sum(map(len, mentions))
        if not total:
            return CLEAR
        kinds = sorted({mention.type for found in mentions for mention in found})
        return Finding(1.0, Decision.REDACT, "personal_data", f"{total} found: {', '.join(kinds).lower()}", mentions)
