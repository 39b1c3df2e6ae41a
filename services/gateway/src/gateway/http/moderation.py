"""/v1/moderations in OpenAI's shape, and /v1/guardrails: checks for callers who run no model through us."""

import hashlib
import json
import secrets
from typing import Annotated, Any, Literal

from google.protobuf.json_format import MessageToDict
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chassis import rpc
from chassis.errors import InvalidArgumentError
from gateway.http.chat import Parts
from gateway.http.exchange import Exchange
from gateway.refusals import RefusedError, require_own
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.guardrail.v1 import guardrail_service_pb2 as pb
from strata.guardrail.v1.guardrail_service_pb2_grpc import GuardrailServiceStub

MODERATIONS, GUARDRAILS = "/v1/moderations", "/v1/guardrails"
CHECK = "guardrail:check"
MODEL = "strata-guardrail"
_MOST_TEXTS = 32
# OpenAI's categories, and ours; those without one of ours are never true, because nothing tells them apart.
_CATEGORIES = {
    "harassment": "harassment", "harassment/threatening": "", "hate": "hate", "hate/threatening": "", "illicit": "unsafe_request",
    "illicit/violent": "", "self-harm": "self_harm", "self-harm/instructions": "", "self-harm/intent": "", "sexual": "sexual",
    "sexual/minors": "", "violence": "violence", "violence/graphic": "",
}  # fmt: skip
_STAGES = {"input": pb.STAGE_INPUT, "retrieved": pb.STAGE_RETRIEVED, "tool": pb.STAGE_TOOL, "output": pb.STAGE_OUTPUT}
_Text = Annotated[str, Field(min_length=1, max_length=100_000)]


class _Part(BaseModel):
    type: Literal["text"]
    text: _Text


class _Moderation(BaseModel):
    # Unknown fields are ignored, as OpenAI's own service does.
    input: _Text | Annotated[list[_Text], Field(min_length=1, max_length=_MOST_TEXTS)] | Annotated[list[_Part], Field(min_length=1)]
    model: str = MODEL


class _Passage(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1, max_length=64)
    text: _Text
    title: str = ""
    version: str = ""


class _Check(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    stage: Literal["input", "retrieved", "tool", "output"]
    texts: Annotated[list[_Text], Field(min_length=1, max_length=_MOST_TEXTS)]
    checks: list[str] = Field(default=[], max_length=40)
    passages: list[_Passage] = Field(default=[], max_length=50)
    require_grounding: bool = False
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    language: str = Field(default="", pattern="^([a-z]{2})?$")


class Moderation:
    """Answers both areas."""

    def __init__(self, parts: Parts, guardrail: GuardrailServiceStub) -> None:
        """Bind the parts and the service that judges."""
        self._parts, self._guardrail = parts, guardrail

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request; raise RefusedError for what is wrong."""
        caller = self._parts.authenticator.authenticate(exchange.header(b"authorization"))
        if exchange.method == "GET" and exchange.path == f"{GUARDRAILS}/checks":
            return await self._list(exchange, caller)
        handlers = {MODERATIONS: self._moderate, f"{GUARDRAILS}/check": self._check}
        handler = handlers.get(exchange.path) if exchange.method == "POST" else None
        if handler is None:
            raise RefusedError("not_found")
        self._parts.admission.check(caller, CHECK)
        self._parts.stops.check(tenant=caller.tenant)
        raw = await exchange.body(self._parts.settings.max_body_bytes, self._parts.settings.body_seconds)
        share = self._parts.gate.enter(caller.tenant, len(raw) // 4)
        try:
            await handler(exchange, caller, raw)
        finally:
            share.leave()

    async def _list(self, exchange: Exchange, caller: Caller) -> None:
        self._parts.admission.check(caller, CHECK)
        found = await self._call(self._guardrail.ListChecks, pb.ListChecksRequest())
        cards = [{**MessageToDict(card, preserving_proto_field_name=True), "stage": _stage_name(card.stage)} for card in found.cards]
        await exchange.respond_json({"object": "list", "data": cards})

    async def _moderate(self, exchange: Exchange, caller: Caller, raw: bytes) -> None:
        body = _read(_Moderation, raw)
        whole = isinstance(body.input, str) or isinstance(body.input[0], _Part)
        texts = [body.input] if isinstance(body.input, str) else [p.text if isinstance(p, _Part) else p for p in body.input]
        # Parts are one message, which gets one result.
        texts = ["\n".join(texts)] if whole else texts
        request = pb.CheckRequest(caller=caller, stage=pb.STAGE_INPUT, texts=texts, checks=["safety"])
        found = await self._judged(exchange, caller, request)
        if any(check.error for result in found.results for check in result.verdict.checks):
            # The form has no place for what nobody knows.
            raise RefusedError("check_failed")
        results = [_moderated(verdict) for verdict in found.results]
        await exchange.respond_json({"id": f"modr-{secrets.token_hex(12)}", "model": MODEL, "results": results})

    async def _check(self, exchange: Exchange, caller: Caller, raw: bytes) -> None:
        body = _read(_Check, raw)
        require_own(body.schema_, param="schema")
        request = pb.CheckRequest(
            caller=caller,
            stage=_STAGES[body.stage],
            texts=body.texts,
            checks=body.checks,
            passages=[pb.Passage(id=p.id, text=p.text, title=p.title, version=p.version) for p in body.passages],
            require_grounding=body.require_grounding,
            schema_json=json.dumps(body.schema_) if body.schema_ is not None else "",
            language=body.language,
        )
        found = await self._judged(exchange, caller, request)
        data = {"object": "guardrail.check", "id": exchange.request_id, "stage": body.stage}
        await exchange.respond_json({**data, "results": [_shown(verdict) for verdict in found.results]})

    async def _judged(self, exchange: Exchange, caller: Caller, request: pb.CheckRequest) -> pb.CheckResponse:
        try:
            found: pb.CheckResponse = await self._call(self._guardrail.Check, request)
        except InvalidArgumentError as error:
            raise RefusedError(error.code, str(error)) from error
        decisions = [pb.Decision.Name(result.verdict.decision).removeprefix("DECISION_").lower() for result in found.results]
        await self._parts.trail.record(
            "check",
            "succeeded",
            record_id=f"{exchange.request_id}/check",
            tenant=caller.tenant,
            request_id=exchange.request_id,
            trace_id="",
            started=exchange.started,
            details={
                "stage": _stage_name(request.stage),
                "texts_sha256": [hashlib.sha256(text.encode()).hexdigest() for text in request.texts],
                "decisions": decisions,
                "codes": [result.verdict.code for result in found.results],
                "key_id": caller.key_id,
            },
        )
        return found

    async def _call(self, method: Any, request: Any) -> Any:
        return await rpc.call(method, request, timeout=self._parts.settings.rpc_timeout_seconds)


def _read(model: Any, raw: bytes) -> Any:
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(
            str(part) for part in first["loc"] if isinstance(part, int) or not str(part).startswith(("str", "list", "constrained"))
        )
        raise RefusedError("invalid_request", str(first["msg"]), param=where or None) from error


def _moderated(verdict: pb.TextVerdict) -> dict[str, Any]:
    flagged = set(verdict.flagged_categories)
    return {
        "flagged": verdict.verdict.decision not in (pb.DECISION_ALLOW, pb.DECISION_REDACT) or bool(flagged),
        "categories": {name: ours in flagged for name, ours in _CATEGORIES.items()},
        "category_scores": {name: round(verdict.categories.get(ours, 0.0), 6) for name, ours in _CATEGORIES.items()},
        "category_applied_input_types": {name: ["text"] if ours else [] for name, ours in _CATEGORIES.items()},
    }


def _shown(verdict: pb.TextVerdict) -> dict[str, Any]:
    found = MessageToDict(verdict, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    inner = found.pop("verdict")
    decision = pb.Decision.Name(verdict.verdict.decision).removeprefix("DECISION_").lower()
    return {"decision": decision, "code": inner["code"], "checks": inner["checks"], "personal_data": inner["personal_data"], **found}


def _stage_name(stage: pb.Stage.ValueType) -> str:
    return pb.Stage.Name(stage).removeprefix("STAGE_").lower()
