"""Keeps unsafe texts from going in or out; whoever speaks of harming themselves is handed to a person."""

from collections.abc import Iterable
from typing import ClassVar

from encoders.reading import Reader
from encoders.safety import SELF_HARM, SafetyDetector, SafetyScore
from guardrail.checks.base import CLEAR, Answer, Conversation, Decision, Finding, OnError

# A stream is judged in windows: a sentence that began in the last one counts.
_TAIL = 200


class _Safety:
    """What both directions share: the detector, and what follows from its categories."""

    name: ClassVar[str] = "safety"
    on_error: OnError = "block"

    def __init__(self, detector: SafetyDetector, reader: Reader, blocked: Iterable[str], budget_ms: float) -> None:
        """Block the categories `blocked`; the others but self-harm are only reported."""
        self._detector, self._reader = detector, reader
        self._blocked = frozenset(blocked)
        self.version = detector.version
        self.threshold = detector.threshold
        self.budget_ms = budget_ms

    def judge(self, text: str) -> SafetyScore:
        """Return the probabilities of one text."""
        return self._detector.judge(*self._reader.read(text))

    def find(self, text: str) -> Finding:
        """Return what follows from one text: a person for self-harm, a block, or a signal."""
        if not text.strip():
            return CLEAR
        found = self.judge(text)
        named = ", ".join(found.flagged_categories)
        if SELF_HARM in found.flagged_categories:
            return Finding(found.categories[SELF_HARM], Decision.ESCALATE, SELF_HARM, f"categories {named}", found)
        worst = max([found.probability, *(found.categories[name] for name in found.flagged_categories)])
        if self._blocked.intersection(found.flagged_categories):
            return Finding(worst, Decision.BLOCK, "unsafe_content", f"categories {named}", found)
        return Finding(worst, reason=f"signal: {named or 'unsafe'}" if found.flagged else "", detail=found)


class SafetyInputCheck(_Safety):
    """Judges every turn of the user; the gravest finding decides."""

    roles: ClassVar[frozenset[str]] = frozenset({"user"})

    def run(self, subject: Conversation, /) -> Finding:
        """Judge the turns of the user, the newest first: only they say what the user means now."""
        found = [self.find(piece.text) for piece in reversed(subject.pieces) if piece.role == "user"]
        return max(found, key=_gravity, default=CLEAR)


class SafetyOutputCheck(_Safety):
    """Judges what a model wrote, with the end of what left before."""

    def run(self, subject: Answer, /) -> Finding:
        """Judge this window; notices, templates and quoted passages are not a model's words.

        The head for self-harm is set to hear a person who means it; alone it would hand every dose of a medicine to somebody.
        """
        if not subject.by_model:
            return CLEAR
        found = self.find(subject.released[-_TAIL:] + subject.text)
        alone = found.code == SELF_HARM and isinstance(found.detail, SafetyScore) and found.detail.probability < self.threshold
        return Finding(found.score, reason=f"signal: {SELF_HARM}", detail=found.detail) if alone else found


def _gravity(finding: Finding) -> tuple[bool, bool, float]:
    return finding.decision is Decision.ESCALATE, finding.flagged, finding.score
