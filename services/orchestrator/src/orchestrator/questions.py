"""What a message asks, without the story around it."""

import re

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


def question_of(message: str) -> str:
    """Return the sentences of a message that ask something, or the whole message where none does."""
    asked = [part.strip() for part in _SENTENCE.split(message) if part.strip().endswith("?")]
    return " ".join(asked) or message
