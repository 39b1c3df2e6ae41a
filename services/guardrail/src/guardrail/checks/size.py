"""Refuses conversations that say nothing or more than the checks can read."""

from typing import ClassVar

from guardrail.checks.base import CLEAR, Conversation, Decision, Finding, OnError


class SizeCheck:
    """Bounds the characters of a conversation."""

    name: ClassVar[str] = "size"
    roles: ClassVar[frozenset[str]] = frozenset({"user"})
    cheap: ClassVar[bool] = True
    version = "1"
    budget_ms = 1000.0
    on_error: OnError = "block"

    def __init__(self, longest: int) -> None:
        """Object to more than `longest` characters in all turns together."""
        self.threshold = float(longest)

    def run(self, subject: Conversation, /) -> Finding:
        """Object to nothing but blanks from the user, and to too much from anyone."""
        total = sum(len(piece.text) for piece in subject.pieces)
        if total > self.threshold:
            reason = f"{total} characters are more than {self.threshold:.0f}"
            return Finding(float(total), Decision.BLOCK, "content_too_large", reason)
        if not any(piece.text.strip() for piece in subject.pieces if piece.role in {"user", "tool"}):
            return Finding(0.0, Decision.BLOCK, "empty_message", "no user turn holds text")
        return CLEAR
