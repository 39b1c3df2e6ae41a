"""From a name to a text: which engines may make it, in which order, and what it cost."""

import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.trace import Span, SpanKind

from chassis import telemetry
from chassis.errors import InternalError, InvalidArgumentError, NotFoundError, PermissionDeniedError, ServiceError, UnavailableError
from chassis.json_schemas import Schema, ValidationError
from chassis.logging import get_logger
from inference import signals
from inference.configuration import Models, Target
from inference.deployments import Served
from inference.providers.base import Job, ModelMissingError, Outcome
from strata.guardrail.v1.guardrail_service_pb2 import Clearance

log = get_logger("generation")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model at a deployment that may make the text."""

    served: Served
    model: str
    adapter: str
    stands_in: bool = False


@dataclass
class Result:
    """How a text came about; complete once the stream has ended."""

    deployment: str = ""
    model: str = ""
    adapter: str = ""
    text: str = ""
    first_token_ms: float = 0.0
    total_ms: float = 0.0
    cost_usd: float = 0.0
    outcome: Outcome = field(default_factory=Outcome)


class ModelGateway:
    """Resolves names, tries engines in order, and accounts for what was used."""

    def __init__(self, models: Models, deployments: Mapping[str, Served]) -> None:
        self.models, self.deployments = models, deployments

    def resolve(self, *, tier: str, adapter: str, tenant: str) -> list[Candidate]:
        """Return who may make the text, best first; raise NotFoundError for a name that this tenant may not use."""
        if adapter:
            entry = self.models.adapters.get(adapter)
            if entry is None or (entry.tenants and tenant not in entry.tenants):
                raise NotFoundError(f"there is no adapter {adapter!r} for tenant {tenant!r}", code="model_not_found")
            candidates = [Candidate(served, adapter, adapter) for served in self._targets(entry)]
            if entry.base_when_missing:
                candidates += [Candidate(served, served.spec.base_model, "", stands_in=True) for served in self._targets(entry)]
            return candidates
        target: Target | None = self.models.tiers.get(tier)  # type: ignore[call-overload]
        if target is None:
            raise NotFoundError(f"there is no tier {tier!r}; known: {sorted(self.models.tiers)}", code="model_not_found")
        return [Candidate(served, served.spec.base_model, "") for served in self._targets(target)]

    def permitted(self, candidates: list[Candidate], clearance: Clearance | None) -> list[Candidate]:
        """Return those that a conversation may go to, without a clearance the cleared ones; raise PermissionDeniedError for none."""
        if clearance is None:
            kept = [candidate for candidate in candidates if candidate.served.spec.sees_personal_data]
        else:
            kept = [candidate for candidate in candidates if candidate.served.name in clearance.deployments]
        if not kept:
            signals.REFUSED.inc()
            raise PermissionDeniedError("this conversation may go to none of the deployments behind the name", code="policy_denied")
        return kept

    def _targets(self, target: Target) -> list[Served]:
        return [self.deployments[name] for name in (target.deployment, *target.fallbacks)]

    async def generate(self, candidates: list[Candidate], job: Job, result: Result) -> AsyncGenerator[str, None]:
        """Yield the text as it is made and complete `result`.

        Before the first piece another candidate takes over from one that fails; after it the error is the caller's to handle.
        """
        began = time.perf_counter()
        problem: ServiceError = UnavailableError("no engine is configured")
        for candidate in _likely_first(candidates):
            if candidate.stands_in and not isinstance(problem, ModelMissingError):
                # The bare model stands in for an adapter that is not there, not for an engine that is busy or down.
                break
            result.deployment, result.model, result.adapter = candidate.served.name, candidate.model, candidate.adapter
            result.outcome = Outcome()
            started = False
            try:
                async with aclosing(self._attempt(candidate, job, result, began)) as pieces:
                    async for piece in pieces:
                        started = True
                        yield piece
            except ServiceError as error:
                if started or not error.retryable:
                    raise
                problem = error
                signals.FAILED_ATTEMPTS.labels(deployment=candidate.served.name, code=error.code).inc()
                log.warning("candidate_failed", deployment=candidate.served.name, model=candidate.model, code=error.code, error=str(error))
            else:
                return
        raise problem

    async def _attempt(self, candidate: Candidate, job: Job, result: Result, began: float) -> AsyncGenerator[str, None]:
        served, error_type = candidate.served, ""
        labels = (signals.CHAT, served.spec.kind, candidate.model)
        attributes: dict[str, Any] = {
            signals.OPERATION: signals.CHAT,
            signals.PROVIDER: served.spec.kind,
            signals.REQUEST_MODEL: candidate.model,
            signals.REQUEST_MAX_TOKENS: job.max_tokens,
            signals.REQUEST_TEMPERATURE: job.temperature,
        }
        with telemetry.span(f"{signals.CHAT} {candidate.model}", kind=SpanKind.CLIENT, **attributes) as span:
            try:
                async with served.place(), aclosing(served.provider.generate(candidate.model, job, result.outcome)) as pieces:
                    async for piece in pieces:
                        result.first_token_ms = result.first_token_ms or (time.perf_counter() - began) * 1e3
                        result.text += piece
                        yield piece
                result.total_ms = (time.perf_counter() - began) * 1e3
                self._account(served, result, labels, span)
                check(result.text, job, result.outcome)
            except BaseException as error:
                error_type = error.code if isinstance(error, ServiceError) else type(error).__name__
                raise
            finally:
                signals.OPERATION_SECONDS.labels(*labels, error_type).observe(time.perf_counter() - began)

    def _account(self, served: Served, result: Result, labels: tuple[str, ...], span: Span) -> None:
        outcome = result.outcome
        result.first_token_ms = result.first_token_ms or result.total_ms
        if outcome.calls:
            outcome.finish_reason = "tool_calls"
        outcome.finish_reason = outcome.finish_reason or "stop"
        result.cost_usd = served.spec.price.cost(outcome.prompt_tokens, outcome.completion_tokens)
        signals.COST.labels(deployment=served.name, model=result.model).inc(result.cost_usd)
        signals.TOKENS.labels(*labels, "input").observe(outcome.prompt_tokens)
        signals.TOKENS.labels(*labels, "output").observe(outcome.completion_tokens)
        signals.FIRST_TOKEN_SECONDS.labels(*labels).observe(result.first_token_ms / 1e3)
        if outcome.completion_tokens > 1:
            seconds = (result.total_ms - result.first_token_ms) / 1e3
            signals.PER_TOKEN_SECONDS.labels(*labels).observe(seconds / (outcome.completion_tokens - 1))
        span.set_attribute(signals.RESPONSE_FINISH, [outcome.finish_reason])
        span.set_attribute(signals.RESPONSE_FIRST, result.first_token_ms / 1e3)
        span.set_attribute(signals.INPUT_TOKENS, outcome.prompt_tokens)
        span.set_attribute(signals.OUTPUT_TOKENS, outcome.completion_tokens)
        span.set_attribute(signals.CACHED_TOKENS, outcome.cached_tokens)


def _likely_first(candidates: list[Candidate]) -> list[Candidate]:
    """Put engines that are known not to serve the model behind those that do; what was seen last may be out of date, so none is dropped."""
    return sorted(candidates, key=lambda candidate: (candidate.stands_in, not candidate.served.serves(candidate.model)))


def check_schema(schema: Any) -> dict[str, Any]:
    """Return a schema that a caller gave; raise InvalidArgumentError when it is none."""
    if not isinstance(schema, dict):
        raise InvalidArgumentError("a JSON Schema must be an object")
    Schema(schema)
    return schema


def check(text: str, job: Job, outcome: Outcome) -> None:
    """Raise InternalError for a finished text that breaks its schema; one that max_tokens cut off says so in its finish reason."""
    if job.schema is None or outcome.calls or outcome.finish_reason == "length":
        return
    try:
        value = json.loads(text)
        Schema(job.schema or {"type": "object"}).validate(value)
    except (ValueError, RecursionError, ValidationError) as error:
        message = error.message if isinstance(error, ValidationError) else str(error)
        raise InternalError(f"the text does not match its schema: {message[:300]}") from error
