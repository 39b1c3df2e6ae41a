"""Screens a conversation: checks it and puts pseudonyms in the place of personal data."""

from collections.abc import Mapping
from dataclasses import dataclass

from guardrail.checks.base import Conversation, Decision, Finding
from guardrail.panel import Outcome, Panel, detail, gravest
from guardrail.personal.detection import Mention
from guardrail.personal.pseudonyms import Pseudonyms


@dataclass(frozen=True)
class Screened:
    """The prevailing finding, the outcome of each check, and the texts with pseudonyms; no texts where none are safe."""

    finding: Finding
    outcomes: tuple[Outcome, ...]
    texts: tuple[str, ...]
    values: Mapping[str, str]
    counts: Mapping[str, int]


class Screener:
    """Judges conversations by one panel, and those that are too large by its size check alone."""

    def __init__(self, panel: Panel[Conversation], gate: Panel[Conversation]) -> None:
        """Run `gate` first: what it refuses costs nothing more."""
        self._panel = panel
        self._gate = gate

    async def screen(self, conversation: Conversation) -> Screened:
        """Return what may go on; where a check failed, nothing may."""
        early = await self._gate.judge(conversation)
        if (finding := gravest(early)).decision is Decision.BLOCK:
            return Screened(finding, early, (), {}, {})
        outcomes = (*early, *await self._panel.judge(conversation))
        finding = gravest(outcomes)
        if any(o.finding.code == "check_failed" for o in outcomes):
            return Screened(finding, outcomes, (), {}, {})
        texts = [piece.text for piece in conversation.pieces]
        found = detail(outcomes, "personal_data")
        mentions: tuple[tuple[Mention, ...], ...] = found if isinstance(found, tuple) else tuple(() for _ in texts)
        pseudonyms = Pseudonyms.beside(texts)
        replaced = tuple(pseudonyms.replace(text, spans) for text, spans in zip(texts, mentions, strict=True))
        return Screened(finding, outcomes, replaced, pseudonyms.values, pseudonyms.counts)
