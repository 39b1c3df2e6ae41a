"""Finds the personal data of a conversation."""

from typing import ClassVar

from guardrail.checks.base import Conversation, Decision, Finding, OnError
from guardrail.personal.detection import Detector, Mention, everywhere, merge


class Mentions(tuple[tuple[Mention, ...], ...]):  # noqa: SLOT001 - a tuple to those who only replace
    """What is to be replaced in each piece; `reported` holds the more that a caller is told and no record may show."""

    reported: tuple[tuple[Mention, ...], ...] = ()


class PersonalDataCheck:
    """Demands redaction where a detector finds something; the detail holds the mentions of each piece."""

    name: ClassVar[str] = "personal_data"
    version = "presidio-2.2/rules-3"
    on_error: OnError = "block"

    def __init__(self, detector: Detector, budget_ms: float) -> None:
        """Use `detector`, whose policy holds the threshold."""
        self._detector = detector
        self.threshold = detector.policy.threshold
        self.budget_ms = budget_ms

    def run(self, subject: Conversation, /) -> Finding:
        """Return the mentions of every piece, in order."""
        texts = [piece.text for piece in subject.pieces]
        readings = [self._detector.read(text) for text in texts]
        mentions = Mentions(map(tuple, everywhere(texts, [reading.replaced for reading in readings])))
        mentions.reported = tuple(tuple(merge(t, [*m, *r.reported])) for t, m, r in zip(texts, mentions, readings, strict=True))
        total = sum(map(len, mentions))
        if not total:
            return Finding(detail=mentions)
        kinds = sorted({mention.type for found in mentions for mention in found})
        return Finding(1.0, Decision.REDACT, "personal_data", f"{total} found: {', '.join(kinds).lower()}", mentions)
