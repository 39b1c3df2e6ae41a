"""Objects to an answer in another language than was asked for."""

from typing import ClassVar

from guardrail.checks.base import CLEAR, Answer, Decision, Finding, OnError
from guardrail.languages import language_of

# Below it, names and headings are taken for languages.
LEAST_WORDS = 12


class LanguageCheck:
    """Looks at what a model has written so far; what follows from another language is the workflow's to declare."""

    name: ClassVar[str] = "language"
    cheap: ClassVar[bool] = True
    version = "1"
    threshold = 1.0
    budget_ms = 1000.0
    on_error: OnError = "allow"

    def run(self, subject: Answer, /) -> Finding:
        """Judge the whole text up to this window; one that is too short or of two languages passes."""
        if not subject.language or subject.schema or not subject.by_model:
            return CLEAR
        found = language_of(subject.released + subject.text, least_words=LEAST_WORDS)
        if found in ("", subject.language):
            return CLEAR
        reason = f"{found} instead of {subject.language}"
        if subject.language_decision is Decision.ALLOW:
            return Finding(0.5, reason=f"signal: {reason}")
        return Finding(1.0, subject.language_decision, "wrong_language", reason)
