"""Catches documents and tool results that speak to the machine which reads them, by rules alone."""

from typing import ClassVar

from encoders.addressing import forges_a_turn, speaks_to_a_machine
from encoders.normalise import normalise
from encoders.windows import parts_of
from guardrail.checks.base import CLEAR, Conversation, Decision, Finding, OnError, Piece

_CHANNELS = {"tool": "tool", "document": "document"}


class AddressingCheck:
    """Blocks data in which a sentence gives an order to an assistant, or which holds a chat format's marks."""

    name: ClassVar[str] = "addressing"
    roles: ClassVar[frozenset[str]] = frozenset({"tool", "document"})
    cheap: ClassVar[bool] = True
    version = "3"
    threshold = 1.0
    budget_ms = 1000.0
    on_error: OnError = "block"

    def run(self, subject: Conversation, /) -> Finding:
        """Judge every document and tool result after undoing its disguises; the first that gives an order decides."""
        for position, piece in enumerate(subject.pieces):
            if piece.role in _CHANNELS and (reason := _order(piece)):
                return Finding(1.0, Decision.BLOCK, "prompt_injection", f"turn {position} of channel {_CHANNELS[piece.role]}: {reason}")
        return CLEAR


def _order(piece: Piece) -> str:
    """Return what is wrong with a piece, in words of ours; nothing where it is data."""
    if forges_a_turn(piece.text):
        return "marks of a chat format"
    found = normalise(piece.text)
    # Whole too: who is spoken to before a colon looks like the key of a value, which parts lack.
    texts = (found.text, *found.decoded, *parts_of(found, _CHANNELS[piece.role]))
    return "a sentence that speaks to a machine" if any(speaks_to_a_machine(text) for text in texts) else ""
