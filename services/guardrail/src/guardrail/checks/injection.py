"""Catches instructions that do not belong: attacks by the user, and orders hidden in tool results."""

from typing import ClassVar

from encoders.injection import InjectionDetector
from encoders.reading import Reader
from guardrail.checks.base import CLEAR, Conversation, Decision, Finding, OnError, Piece

_CHANNELS = {"user": "user", "tool": "tool", "document": "document"}


class InjectionCheck:
    """Blocks a conversation with a turn that its channel's head holds for an attack."""

    name: ClassVar[str] = "injection"
    roles: ClassVar[frozenset[str]] = frozenset({"user", "tool", "document"})
    on_error: OnError = "block"

    def __init__(self, detector: InjectionDetector, reader: Reader, budget_ms: float) -> None:
        """Use `detector`, whose channels have their own thresholds; `reader` shares its vectors with other checks."""
        self._detector, self._reader = detector, reader
        self.version = detector.version
        self.threshold = detector.thresholds["user"]
        self.budget_ms = budget_ms

    def run(self, subject: Conversation, /) -> Finding:
        """Judge every turn of the user and of a tool; the worst one decides."""
        worst, reason, flagged = 0.0, "", False
        for position, piece in enumerate(subject.pieces):
            channel = _CHANNELS.get(piece.role)
            if channel is None or not piece.text.strip():
                continue
            score, over = self.judge(piece, channel)
            worst = max(worst, score)
            if over and not flagged:
                flagged, reason = True, f"turn {position} of channel {channel}"
        if not flagged:
            return CLEAR if worst == 0.0 else Finding(worst)
        return Finding(worst, Decision.BLOCK, "prompt_injection", reason)

    def judge(self, piece: Piece, channel: str) -> tuple[float, bool]:
        """Return the probability of an attack, and whether it is too high for the channel."""
        found = self._detector.judge(*self._reader.read(piece.text, channel))
        return found.probability, found.flagged
