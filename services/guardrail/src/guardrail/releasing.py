"""Decides whether a window of an answer may leave, in what words, and signs it."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from chassis.provisioning import load_signing_key
from contracts import releases
from guardrail.checks.base import Answer, Decision, Finding
from guardrail.checks.grounding import Support
from guardrail.panel import Outcome, Panel, detail, gravest
from guardrail.personal.detection import Mention
from guardrail.personal.pseudonyms import Edit, apply, moved, restorations
from strata.gateway.v1.gateway_events_pb2 import ToolCall
from strata.guardrail.v1.guardrail_service_pb2 import Release, ReleaseClaims

_LOOK_SECONDS = 1.0
_PASSES = {Decision.ALLOW, Decision.REDACT}


@dataclass(frozen=True)
class Highlight:
    """The support of one sentence, by its place in the text that leaves, and of its evidence in the passage."""

    start: int
    end: int
    support: float
    source_id: str
    kind: str = ""
    reason: str = ""
    evidence: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Judged:
    """The prevailing finding with the outcome of each check; `text` is what may leave, if it may."""

    finding: Finding
    outcomes: tuple[Outcome, ...]
    text: str
    tool_calls: tuple[ToolCall, ...]
    highlights: tuple[Highlight, ...]
    leaked: Mapping[str, int]

    @property
    def passes(self) -> bool:
        """Whether the window may leave."""
        return self.finding.decision in _PASSES


class Signer:
    """Holds the one key whose signature lets a text leave; a new one is taken up within a second."""

    def __init__(self, state_dir: Path) -> None:
        """Read the key; raise OSError or TypeError when there is none."""
        self._state_dir = state_dir
        self.key_id, self._key = load_signing_key(state_dir)
        self._looked_at = time.monotonic()

    def _look(self) -> None:
        if time.monotonic() - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        # Half a change cannot be seen: the file is replaced whole. Whatever is wrong with it, the key in hand stays good.
        with suppress(OSError, ValueError, TypeError):
            self.key_id, self._key = load_signing_key(self._state_dir)

    def sign(self, claims: ReleaseClaims, judged: Judged) -> Release:
        """Return the release of a window that passes."""
        self._look()
        claims.signed_at_ms = int(time.time() * 1000)
        return releases.sign(self._key, self.key_id, claims, judged.text, judged.tool_calls)


class Releaser:
    """Judges windows by one panel and finds the words that leave."""

    def __init__(self, panel: Panel[Answer]) -> None:
        """Use `panel` for every window."""
        self._panel = panel

    async def judge(self, answer: Answer, tool_calls: Sequence[ToolCall], *, may_read: bool) -> Judged:
        """Check the text as the model wrote it, then redact leaks and, for who may read them, restore pseudonyms."""
        outcomes = await self._panel.judge(answer)
        finding = gravest(outcomes)
        leaked = _mentions(outcomes)
        edits = [Edit(m.start, m.end, f"<{m.type}>") for m in leaked]
        if may_read:
            edits += [e for e in restorations(answer.text, answer.vault, json_text=bool(answer.schema)) if not _inside(e, leaked)]
        calls = tuple(_restored_call(call, answer.vault, may_read=may_read) for call in tool_calls)
        counts = Counter(m.type for m in leaked)
        return Judged(finding, outcomes, apply(answer.text, edits), calls, tuple(_highlights(outcomes, edits)), counts)


def _mentions(outcomes: Sequence[Outcome]) -> tuple[Mention, ...]:
    found = detail(outcomes, "pii_leak")
    return found if isinstance(found, tuple) else ()


def _inside(edit: Edit, mentions: Sequence[Mention]) -> bool:
    return any(m.start < edit.end and edit.start < m.end for m in mentions)


def _highlights(outcomes: Sequence[Outcome], edits: Sequence[Edit]) -> list[Highlight]:
    found = detail(outcomes, "grounding")
    supports: tuple[Support, ...] = found if isinstance(found, tuple) else ()
    return [_highlight(support, edits) for support in supports]


def _highlight(support: Support, edits: Sequence[Edit]) -> Highlight:
    start, end = moved(support.sentence.start, edits), moved(support.sentence.end, edits)
    return Highlight(start, end, support.probability, support.source_id, support.kind, support.reason, support.evidence)


def _restored_call(call: ToolCall, vault: Mapping[str, str], *, may_read: bool) -> ToolCall:
    if not may_read:
        return call
    text = apply(call.arguments_json, restorations(call.arguments_json, vault, json_text=True))
    return ToolCall(id=call.id, name=call.name, arguments_json=text)
