"""Catches an answer that recites the instructions it was given."""

import re
from collections.abc import Iterable, Iterator
from typing import ClassVar

from guardrail.checks.base import CLEAR, Answer, Decision, Finding, OnError
from guardrail.sentences import ABSTAIN

_WORD = re.compile(r"[a-z0-9']+")


def _shingles(text: str, size: int) -> Iterator[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return (tuple(words[i : i + size]) for i in range(len(words) - size + 1))


class PromptLeakCheck:
    """Objects to a run of words out of a system prompt."""

    name: ClassVar[str] = "prompt_leak"
    cheap: ClassVar[bool] = True
    version = "1"
    budget_ms = 1000.0
    on_error: OnError = "block"

    def __init__(self, prompts: Iterable[str], words: int) -> None:
        """Know `prompts`; a run of `words` words is a leak. What an answer is told to say is none."""
        self.threshold = float(words)
        self._words = words
        allowed = set(_shingles(ABSTAIN, words))
        self._known = frozenset(s for prompt in prompts for s in _shingles(prompt, words)) - allowed

    def run(self, subject: Answer, /) -> Finding:
        """Look at this window together with the end of what was released before."""
        if not subject.by_model or not self._known:
            return CLEAR
        tail = subject.released[-400:]
        quoted = {s for source in subject.sources for s in _shingles(source.text, self._words)}
        found = sum(s in self._known and s not in quoted for s in _shingles(tail + subject.text, self._words))
        if not found:
            return CLEAR
        return Finding(1.0, Decision.BLOCK, "system_prompt_leak", f"{found} runs of {self._words} words out of a system prompt")
