"""Between the domain and protobuf."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from chassis.errors import InvalidArgumentError
from chassis.json_mapping import to_json_bytes
from chassis.policy import Escalation
from contracts.releases import completion_digest
from contracts.subjects import InvalidTokenError, token
from guardrail.checks.base import Answer, Conversation, Decision, Origin, Piece, Source
from guardrail.clearance import Cleared
from guardrail.languages import LANGUAGES, language_of
from guardrail.panel import Outcome
from guardrail.personal.sessions import Owner
from guardrail.releasing import Highlight, Judged
from guardrail.screening import Screened
from strata.gateway.v1.gateway_events_pb2 import Caller, ChatMessage
from strata.guardrail.v1 import guardrail_service_pb2 as pb
from strata.orchestrator.v1.orchestrator_events_pb2 import Completion

_LONGEST_SESSION_ID = 128
# Of a question; a shorter one may be nothing but names.
_LEAST_WORDS = 6


def require(request_id: str, caller: Caller) -> None:
    """Refuse what names no request or no proper tenant; raise InvalidArgumentError."""
    try:
        token(request_id, what="request_id")
        token(caller.tenant, what="tenant")
    except InvalidTokenError as error:
        raise InvalidArgumentError(str(error)) from error


def to_owner(caller: Caller, session_id: str) -> Owner:
    """Return whose session it is; raise InvalidArgumentError for a name that is empty or too long."""
    if not 0 < len(session_id) <= _LONGEST_SESSION_ID:
        raise InvalidArgumentError(f"session_id must have 1 to {_LONGEST_SESSION_ID} characters")
    try:
        token(caller.tenant, what="tenant")
    except InvalidTokenError as error:
        raise InvalidArgumentError(str(error)) from error
    return Owner(caller.tenant, caller.user or caller.key_id, session_id)


def to_conversation(messages: Sequence[ChatMessage]) -> Conversation:
    """Return every text of the messages, in the order in which `rebuilt` takes them back."""
    return Conversation(tuple(Piece(role, text) for message in messages for role, text in _texts(message)))


def _texts(message: ChatMessage) -> Iterator[tuple[str, str]]:
    yield message.role, message.content
    if message.name:
        yield "name", message.name
    for call in message.tool_calls:
        for text in _leaves(_arguments(call.arguments_json)):
            yield "arguments", text


def _arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)


def _refilled(value: Any, texts: Iterator[str]) -> Any:
    if isinstance(value, str):
        return next(texts)
    if isinstance(value, Mapping):
        return {key: _refilled(item, texts) for key, item in value.items()}
    return [_refilled(item, texts) for item in value] if isinstance(value, list) else value


def rebuilt(messages: Sequence[ChatMessage], texts: Sequence[str]) -> list[ChatMessage]:
    """Return copies of the messages with `texts` in the places that `to_conversation` read."""
    rest, copies = iter(texts), []
    for message in messages:
        copy = ChatMessage()
        copy.CopyFrom(message)
        copy.content = next(rest)
        if message.name:
            copy.name = next(rest)
        for call in copy.tool_calls:
            value = _arguments(call.arguments_json)
            refilled = _refilled(value, rest)
            call.arguments_json = refilled if isinstance(value, str) else json.dumps(refilled, ensure_ascii=False)
        copies.append(copy)
    return copies


def to_sources(passages: Sequence[pb.Passage]) -> tuple[Source, ...]:
    """Return the passages that an answer may rest on."""
    return tuple(
        Source(p.id, p.text, p.title, p.version, p.document_id, p.effective_from, p.effective_to, p.superseded_by) for p in passages
    )


def to_language(code: str) -> str:
    """Return a language that is known, or nothing; raise InvalidArgumentError for any other."""
    if code and code not in LANGUAGES:
        raise InvalidArgumentError(f"unknown language {code!r}; known: {sorted(LANGUAGES)}")
    return code


def _to_decision(number: int) -> Decision:
    try:
        return Decision(number or pb.DECISION_ALLOW)
    except ValueError as error:
        raise InvalidArgumentError(f"unknown decision {number}") from error


def to_answer(request: pb.CheckOutputRequest, vault: Mapping[str, str], canaries: tuple[str, ...] = ()) -> Answer:
    """Return the window that a request asks about."""
    return Answer(
        text=request.text,
        released=request.released_text,
        final=request.final,
        origin=Origin(request.origin),
        sources=to_sources(request.passages),
        require_grounding=request.require_grounding,
        schema=request.schema_json,
        vault=vault,
        canaries=canaries,
        language=to_language(request.language),
        language_decision=_to_decision(request.language_decision),
    )


def to_claims(request: pb.CheckOutputRequest, decision: Decision) -> pb.ReleaseClaims:
    """Return what a release of this window would assert; raise InvalidArgumentError for a completion that is none."""
    return pb.ReleaseClaims(
        request_id=request.request_id,
        trace_id=request.trace_id,
        tenant=request.caller.tenant,
        sequence=request.sequence,
        final=request.final,
        status=request.status or "completed",
        reviewed=request.origin == pb.ORIGIN_REVIEWED,
        completion_sha256=_completion_digest(request.completion, decision) if request.final and request.completion else b"",
    )


def _completion_digest(body: bytes, decision: Decision) -> bytes:
    try:
        completion = Completion.FromString(body)
    except DecodeError as error:
        raise InvalidArgumentError("the completion cannot be read") from error
    # What this check has decided is not the caller's to say.
    completion.verdict = completion.verdict or decision.name.lower()
    return completion_digest(json.loads(to_json_bytes(completion)))


def to_facts(request: pb.EvaluateRulesRequest) -> dict[str, Any]:
    """Return the facts that rules see; nobody may state who the caller is but the caller's own field."""
    facts = MessageToDict(request.facts)
    facts.setdefault("context", {})
    facts.setdefault("route", {})
    caller = request.caller
    return facts | {"caller": {"tenant": caller.tenant, "role": caller.role, "user": caller.user, "permissions": list(caller.permissions)}}


def to_result(outcome: Outcome) -> pb.CheckResult:
    """Return what one check said."""
    return pb.CheckResult(
        name=outcome.name,
        version=outcome.version,
        score=outcome.finding.score,
        threshold=outcome.threshold,
        flagged=outcome.finding.flagged,
        reason=outcome.finding.reason,
        latency_ms=outcome.latency_ms,
        error=outcome.error,
    )


def to_input_response(
    screened: Screened, messages: Sequence[ChatMessage], vault: bytes, cleared: Cleared, canary: str
) -> pb.CheckInputResponse:
    """Return the verdict and, where they are safe to hand on, the messages with pseudonyms."""
    verdict = pb.Verdict(
        decision=screened.finding.decision.value,
        checks=[to_result(o) for o in screened.outcomes],
        code=screened.finding.code,
        personal_data=dict(screened.counts),
    )
    return pb.CheckInputResponse(
        verdict=verdict,
        messages=rebuilt(messages, screened.texts) if screened.texts else [],
        vault=vault,
        clearance=pb.Clearance(sensitivity=cleared.sensitivity, deployments=cleared.deployments, policy_ids=cleared.policy_ids),
        canary=canary,
        language=language_of(next((m.content for m in reversed(messages) if m.role == "user"), ""), least_words=_LEAST_WORDS),
    )


def to_output_response(judged: Judged, release: pb.Release | None) -> pb.CheckOutputResponse:
    """Return the verdict with the release, if there is one."""
    verdict = pb.Verdict(
        decision=judged.finding.decision.value,
        checks=[to_result(o) for o in judged.outcomes],
        code=judged.finding.code,
        personal_data=dict(judged.leaked),
    )
    return pb.CheckOutputResponse(verdict=verdict, release=release, sentences=[to_support(h) for h in judged.highlights])


def to_support(highlight: Highlight) -> pb.SentenceSupport:
    """Return the support of one sentence."""
    return pb.SentenceSupport(
        start=highlight.start,
        end=highlight.end,
        support=highlight.support,
        passage_id=highlight.source_id,
        kind=highlight.kind,
        reason=highlight.reason,
        evidence_start=highlight.evidence[0],
        evidence_end=highlight.evidence[1],
    )


def to_rules_response(rule: Escalation | None) -> pb.EvaluateRulesResponse:
    """Return the rule that fired, if any."""
    if rule is None:
        return pb.EvaluateRulesResponse(escalate=False)
    return pb.EvaluateRulesResponse(
        escalate=True,
        rule_id=rule.id,
        rule_version=rule.version,
        reason=rule.reason,
        severity=rule.severity,
        deadline_seconds=rule.deadline_seconds,
        message=rule.message.strip(),
    )
