"""Screens a conversation: checks it and puts pseudonyms in the place of personal data."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from guardrail.checks.base import Conversation, Decision, Finding
from guardrail.panel import Outcome, Panel, detail, gravest
from guardrail.personal.detection import Mention, everywhere
from guardrail.personal.pseudonyms import Pseudonyms


@dataclass(frozen=True)
class Screened:
    """The prevailing finding, the outcome of each check, and the texts with pseudonyms; no texts where none are safe."""

    finding: Finding
    outcomes: tuple[Outcome, ...]
    texts: tuple[str, ...]
    values: Mapping[str, str]
    counts: Mapping[str, int]
    pieces: tuple[str, ...] = ()
    mentions: tuple[tuple[Mention, ...], ...] = ()

    @property
    def personal(self) -> bool:
        """Whether there is personal data in the conversation, or nobody can tell because a check failed."""
        return any(self.mentions) or any(outcome.finding.code == "check_failed" for outcome in self.outcomes)

    def with_known(self, known: Mapping[str, str]) -> "Screened":
        """Return the same with the pseudonyms that are known already where their values come again."""
        if not self.texts:
            return self
        earlier = {value: token[1:-1].rpartition("_")[0] for token, value in known.items()}
        mentions = tuple(map(tuple, everywhere(self.pieces, self.mentions, earlier))) if earlier else self.mentions
        pseudonyms = Pseudonyms.beside(self.pieces, known)
        texts = tuple(pseudonyms.replace(text, spans) for text, spans in zip(self.pieces, mentions, strict=True))
        finding = self.finding
        if any(mentions) and not finding.flagged:
            finding = Finding(1.0, Decision.REDACT, "personal_data", "known from earlier turns")
        return replace(self, finding=finding, mentions=mentions, texts=texts, values=pseudonyms.values, counts=pseudonyms.counts)


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
        return Screened(finding, outcomes, tuple(texts), {}, {}, tuple(texts), mentions).with_known({})
