"""Judges texts for callers who run no model through us: any stage, each text alone, nothing signed."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from chassis.errors import InvalidArgumentError
from encoders.safety import SafetyScore
from guardrail.cards import cards
from guardrail.checks.base import Answer, Conversation, Decision, Origin, Piece, Source
from guardrail.checks.form import schema_of
from guardrail.checks.personal_data import Mentions
from guardrail.panel import Outcome, Panel, detail, gravest
from guardrail.personal.detection import Mention
from guardrail.personal.pseudonyms import Pseudonyms
from guardrail.releasing import Releaser
from guardrail.wire import to_result, to_support
from strata.guardrail.v1 import guardrail_service_pb2 as pb

MOST_TEXTS = 32
# Verdicts of passages that are kept, some hundred bytes each.
_REMEMBERED = 8192
S = TypeVar("S")
# Who speaks at a stage, as the checks of conversations know it.
_ROLES = {pb.STAGE_INPUT: "user", pb.STAGE_RETRIEVED: "document", pb.STAGE_TOOL: "tool"}


@dataclass(frozen=True)
class Order:
    """What is to be judged, where it stands, and what an output may rest on."""

    stage: pb.Stage.ValueType
    texts: Sequence[str]
    checks: frozenset[str] = frozenset()
    sources: tuple[Source, ...] = ()
    require_grounding: bool = False
    schema: str = ""
    canaries: tuple[str, ...] = ()
    language: str = ""


class Moderator:
    """Runs the checks of a stage by name."""

    def __init__(self, inputs: Panel[Conversation], outputs: Panel[Answer]) -> None:
        """Use the very panels that requests pass; raise KeyError for a check without a card."""
        self._inputs, self._outputs = inputs, outputs
        self._known: OrderedDict[bytes, pb.Verdict] = OrderedDict()
        self.cards = cards(inputs.checks, outputs.checks)

    async def judge(self, order: Order) -> list[pb.TextVerdict]:
        """Return a verdict for each text; raise InvalidArgumentError for an unknown stage or check, or a schema that is refused."""
        if not 1 <= len(order.texts) <= MOST_TEXTS:
            raise InvalidArgumentError(f"give 1 to {MOST_TEXTS} texts")
        if order.stage == pb.STAGE_OUTPUT:
            if order.schema:
                # In a thread: the schema of a stranger takes its time to read.
                await asyncio.to_thread(schema_of, order.schema)
            panel = _chosen(self._outputs, order.checks)
            return list(await asyncio.gather(*(self._output(panel, order, text) for text in order.texts)))
        if order.stage not in _ROLES:
            raise InvalidArgumentError("the stage must be input, retrieved, tool or output")
        role = _ROLES[order.stage]
        able = [check.name for check in self._inputs.checks if role in getattr(check, "roles", {role})]
        chosen = _chosen(self._inputs.only(able), order.checks)
        judged = [self._data(chosen, order, text) if order.stage == pb.STAGE_RETRIEVED else _input(chosen, text, role)
                  for text in order.texts]  # fmt: skip
        return list(await asyncio.gather(*judged))

    async def _data(self, panel: Panel[Conversation], order: Order, text: str) -> pb.TextVerdict:
        """Judge a passage, which many requests find again: what was said of it without an error and a finding in it is remembered."""
        key = hashlib.sha256("\0".join([*(check.name for check in panel.checks), text]).encode(errors="surrogatepass")).digest()
        if (known := self._known.get(key)) is not None:
            self._known.move_to_end(key)
            return pb.TextVerdict(verdict=known, redacted=text)
        result = await _input(panel, text, _ROLES[order.stage])
        if result.redacted == text and not result.categories and not any(check.error for check in result.verdict.checks):
            self._known[key] = result.verdict
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return result

    async def _output(self, panel: Panel[Answer], order: Order, text: str) -> pb.TextVerdict:
        answer = Answer(
            text,
            origin=Origin.MODEL,
            sources=order.sources,
            require_grounding=order.require_grounding or bool(order.sources),
            schema=order.schema,
            canaries=order.canaries,
            language=order.language,
            language_decision=Decision.REGENERATE,
        )
        judged = await Releaser(panel).judge(answer, (), may_read=False)
        mentions = detail(judged.outcomes, "pii_leak")
        result = _verdict(judged.outcomes, judged.text, mentions if isinstance(mentions, tuple) else ())
        result.sentences.extend(to_support(highlight) for highlight in judged.highlights)
        return result


async def _input(panel: Panel[Conversation], text: str, role: str) -> pb.TextVerdict:
    outcomes = await panel.judge(Conversation((Piece(role, text),)))
    found = detail(outcomes, "personal_data")
    mentions: Sequence[Mention] = found.reported[0] if isinstance(found, Mentions) and found.reported else ()
    return _verdict(outcomes, Pseudonyms.beside([text]).replace(text, mentions), mentions)


def _verdict(outcomes: Sequence[Outcome], redacted: str, mentions: Sequence[Mention]) -> pb.TextVerdict:
    finding = gravest(outcomes)
    result = pb.TextVerdict(
        verdict=pb.Verdict(decision=finding.decision.value, code=finding.code, checks=[to_result(outcome) for outcome in outcomes]),
        redacted=redacted,
        spans=[pb.PersonalSpan(start=m.start, end=m.end, type=m.type) for m in mentions],
    )
    for mention in mentions:
        result.verdict.personal_data[mention.type] += 1
    safety = detail(outcomes, "safety")
    if isinstance(safety, SafetyScore):
        result.categories.update(safety.categories)
        result.categories["unsafe"] = safety.probability
        result.flagged_categories.extend(safety.flagged_categories)
    return result


def _chosen(panel: Panel[S], names: frozenset[str]) -> Panel[S]:
    known = {check.name for check in panel.checks}
    if unknown := names - known:
        raise InvalidArgumentError(f"unknown checks {sorted(unknown)}; this stage has {sorted(known)}")
    if not known:
        # Nobody may take silence for a verdict.
        raise InvalidArgumentError("no check judges this stage")
    return panel.only(names) if names else panel
