"""Holds a model's text to a sensible length, to the language that was asked for, and to saying a thing once."""

import re
from collections import Counter
from typing import ClassVar

from guardrail.checks.base import CLEAR, Answer, Decision, Finding, OnError

_WORD = re.compile(r"[^\W\d_]+|\d+")
_RUN = 6
_REPEATS = 4
_REFUSAL = re.compile(
    r"^\W*(?:i(?:'m| am) (?:sorry|unable|not able)|i (?:can(?:no|')t|won't|must decline)|as an ai\b|sorry,? (?:but )?i\b)", re.IGNORECASE
)


class WordingCheck:
    """Objects to text that runs in circles or on and on; a refusal is only reported."""

    name: ClassVar[str] = "wording"
    cheap: ClassVar[bool] = True
    version = "1"
    threshold = float(_REPEATS)
    budget_ms = 1000.0
    on_error: OnError = "allow"

    def __init__(self, max_characters: int) -> None:
        """Let no answer have more than `max_characters`."""
        self._most = max_characters

    def run(self, subject: Answer, /) -> Finding:
        """Judge all that was released with this window; structured answers repeat keys by design."""
        if not subject.by_model:
            return CLEAR
        text = subject.released + subject.text
        if len(text) > self._most:
            return Finding(1.0, Decision.REGENERATE, "too_long", f"more than {self._most} characters")
        if subject.schema:
            return CLEAR
        words = _WORD.findall(text.lower())
        runs = Counter(tuple(words[i : i + _RUN]) for i in range(len(words) - _RUN + 1))
        if runs and runs.most_common(1)[0][1] >= _REPEATS:
            return Finding(1.0, Decision.REGENERATE, "repetitive", f"{_RUN} words in a row, {_REPEATS} times or more")
        return Finding(0.5, reason="signal: a refusal") if _REFUSAL.match(text) else CLEAR
