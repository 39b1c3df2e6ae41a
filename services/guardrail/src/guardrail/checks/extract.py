"""Makes sure that what is presented as a quotation is one."""
# ruff: noqa: RUF001 - people type curly quotes, and so must the patterns

import re
from collections.abc import Collection
from typing import ClassVar

from guardrail.checks.base import CLEAR, Answer, Decision, Finding, OnError, Origin
from guardrail.sentences import is_abstention

_MARKS = re.compile(r"\[\d[\d,\s]*\]|[\"“”'‘’>*_•…-]|\.\.\.")


def _plain(text: str) -> str:
    return " ".join(_MARKS.sub(" ", text).split()).casefold()


class ExtractCheck:
    """Objects to an extract with a sentence that no passage holds word for word."""

    name: ClassVar[str] = "extract"
    cheap: ClassVar[bool] = True
    version = "1"
    threshold = 1.0
    budget_ms = 1000.0
    on_error: OnError = "block"

    def __init__(self, notices: Collection[str]) -> None:
        """Allow `notices`, the product's own words around quotations."""
        self._notices = frozenset(_plain(notice) for notice in notices)

    def run(self, subject: Answer, /) -> Finding:
        """Compare without marks, case and blanks; titles, versions and citations of the passages may stand beside."""
        if subject.origin is not Origin.EXTRACT:
            return CLEAR
        quotable = [_plain(f"{source.title} {source.version} {source.text}") for source in subject.sources]
        quotable += [_plain(source.text) for source in subject.sources]
        strange = [s for s in subject.sentences if not self._allowed(s.text, quotable)]
        if not strange:
            return CLEAR
        reason = f"{len(strange)} of {len(subject.sentences)} sentences are in no passage"
        return Finding(len(strange) / len(subject.sentences), Decision.ABSTAIN, "extract_altered", reason)

    def _allowed(self, text: str, quotable: list[str]) -> bool:
        plain = _plain(text)
        return not plain or is_abstention(text) or plain in self._notices or any(plain in source for source in quotable)
