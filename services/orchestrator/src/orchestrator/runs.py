"""One run in the hands of its owner: the record, what it may still spend, and the write that finishes a step."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode

from chassis.errors import InvalidArgumentError, ServiceError
from orchestrator.answers import Answer
from orchestrator.catalogue import Catalogue
from orchestrator.peers import Peers
from orchestrator.recording import Recorder, build
from orchestrator.records import RunStore
from orchestrator.settings import Settings
from orchestrator.workflows import Step, Workflow
from strata.audit.v1.audit_events_pb2 import StepRecorded
from strata.gateway.v1.gateway_events_pb2 import ChatMessage, RequestAdmitted
from strata.orchestrator.v1.orchestrator_events_pb2 import RunRecord, StepResult

if TYPE_CHECKING:
    from orchestrator.answer_cache import AnswerCache

RUNNING, DONE, FAILED = "running", "done", "failed"
# A notice, such as that a person will decide, leaves even when the time is up.
_NOTICE_SECONDS = 3.0


class BudgetExceededError(ServiceError):
    """A run wants more than its workflow allows; a repeat would want the same."""

    status = StatusCode.RESOURCE_EXHAUSTED
    default_code = "budget_exceeded"


@dataclass(frozen=True)
class Outcome:
    """What a step came to."""

    # What later steps see; None for a step that was skipped.
    result: dict[str, Any] | None = None
    outcome: str = "succeeded"
    code: str = ""
    # What a reader of the audit log needs, without personal data.
    details: Mapping[str, Any] = field(default_factory=dict)
    # Runs after the audit has the record and before the run record is written.
    effect: Callable[[], Awaitable[None]] | None = None


@dataclass
class Tools:
    """What a run works with; the same for all runs of an instance."""

    settings: Settings
    catalogue: Catalogue
    store: RunStore
    recorder: Recorder
    peers: Peers
    cache: "AnswerCache"


@dataclass
class Run:
    """A run that this instance owns; every write of it is fenced by `revision`."""

    request: RequestAdmitted
    workflow: Workflow
    record: RunRecord
    revision: int
    tools: Tools
    answer: Answer
    # Told once, in the first record of each owner.
    opening: dict[str, Any] = field(default_factory=dict)
    results: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    model_calls: int = 0
    tool_calls: int = 0
    output_tokens: int = 0
    # When a model first failed to answer; None while none has.
    model_away_since: float | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _changes: int = 0
    _written: int = 0

    def __post_init__(self) -> None:
        """Take up what finished steps left."""
        for name, step in self.record.steps.items():
            self.results[name] = json_format.MessageToDict(step.result) if step.HasField("result") else None
        for result in filter(None, self.results.values()):
            self.model_calls += int(result.get("model_calls", 0))
            self.tool_calls += int(result.get("tool_calls", 0))
            self.output_tokens += int(result.get("completion_tokens", 0))

    @property
    def key(self) -> str:
        """Key of the run's record."""
        return f"{self.request.caller.tenant}.{self.request.request_id}"

    @property
    def messages(self) -> list[ChatMessage]:
        """The conversation after screening."""
        return list(self.record.screened_messages)

    @property
    def message(self) -> str:
        """The last user turn after screening; empty before."""
        return next((m.content for m in reversed(self.record.screened_messages) if m.role == "user"), "")

    @property
    def ending(self) -> dict[str, Any] | None:
        """The notice that a step ended the run with, if one did."""
        return next((result["ending"] for result in self.results.values() if result and "ending" in result), None)

    @property
    def route(self) -> dict[str, Any]:
        """The router's decision; empty before it or without it."""
        return next((self.results[s.id] or {} for s in self.workflow.of_kind("route") if s.id in self.results), {})

    @property
    def clearance(self) -> dict[str, Any]:
        """Where guardrail lets the conversation go; empty before it has said so."""
        screened = next((self.results[s.id] or {} for s in self.workflow.of_kind("screen") if s.id in self.results), {})
        return dict(screened.get("clearance", {}))

    @property
    def canary(self) -> str:
        """The secret that prompts of this run may hold; empty before guardrail has named it."""
        screened = next((self.results[s.id] or {} for s in self.workflow.of_kind("screen") if s.id in self.results), {})
        return str(screened.get("canary", ""))

    @property
    def language(self) -> str:
        """The language of the last turn of the user; empty where it cannot be told."""
        screened = next((self.results[s.id] or {} for s in self.workflow.of_kind("screen") if s.id in self.results), {})
        return str(screened.get("language", ""))

    def scope(self) -> dict[str, Any]:
        """Return what conditions and templates see."""
        request = {
            "message": self.message,
            "model": self.request.model,
            "session_id": self.request.session_id,
            "context": self.context,
        }
        caller = {"tenant": self.request.caller.tenant, "role": self.request.caller.role}
        return {**self.results, "request": request, "caller": caller}

    @property
    def context(self) -> dict[str, Any]:
        """The client's facts for policy."""
        return dict(json_format.MessageToDict(self.request.context))

    def remaining(self) -> float:
        """Return the seconds until the deadline; negative when it is over."""
        return (self.record.deadline.ToMilliseconds() / 1000) - time.time()

    def timeout(self, step: Step) -> float:
        """Return the seconds that a step may take now."""
        factor = self.tools.settings.deadline_factor
        seconds = min(step.timeout_seconds * factor, self.remaining())
        return seconds if self.ending is None else max(seconds, _NOTICE_SECONDS * factor)

    def set_deadline(self, seconds: float) -> None:
        """Let the run end so many seconds, stretched by the factor, after the gateway accepted it."""
        milliseconds = self.request.received_at.ToMilliseconds() or self.record.started_at.ToMilliseconds()
        self.record.deadline.FromMilliseconds(int(milliseconds + seconds * self.tools.settings.deadline_factor * 1000))

    def spend_model_call(self, wanted_tokens: int) -> int:
        """Count a call of a model and return the tokens it may make; raise BudgetExceededError when none are left."""
        budget = self.workflow.budget
        tokens = budget.output_tokens - self.output_tokens
        if self.model_calls >= budget.model_calls or tokens <= 0:
            raise BudgetExceededError(f"{self.workflow.name} allows {budget.model_calls} model calls and {budget.output_tokens} tokens")
        self.model_calls += 1
        return min(tokens, wanted_tokens)

    def spend_tool_call(self) -> None:
        """Count a call of a tool; raise BudgetExceededError when none is left."""
        if self.tool_calls >= self.workflow.budget.tool_calls:
            raise BudgetExceededError(f"{self.workflow.name} allows {self.workflow.budget.tool_calls} tool calls")
        self.tool_calls += 1

    async def finish(self, step: Step, outcome: Outcome, *, began: float, seconds: float) -> None:
        """Make a step done: the audit has its record and the run record its result, in one write."""
        result, audit = self._result(step, outcome, began, seconds), self._audit(step, outcome, began, seconds)
        if outcome.effect is not None:
            # The record is there before the effect; whoever takes over between the two attempts it once more, under a record of its own.
            audit.phase = "attempted"
            await self.tools.recorder.publish(audit)
            await outcome.effect()
            self._take(step, outcome, result)
            await self._save()
            return
        self._take(step, outcome, result)
        self.record.unconfirmed.append(audit)
        # The audit's record goes onto the connection first; both have to arrive, and a lost run is told before anything else.
        recorded = asyncio.ensure_future(self.tools.recorder.publish(audit))
        await asyncio.sleep(0)
        try:
            await self._save()
        finally:
            await asyncio.wait([recorded])
        recorded.result()
        # By name: the bus has numbered the record meanwhile.
        names = [pending.record_id for pending in self.record.unconfirmed]
        del self.record.unconfirmed[names.index(audit.record_id)]

    async def end(self, status: str) -> None:
        """Write a terminal state."""
        self.record.status = status
        await self._save()

    async def confirm(self) -> None:
        """Publish again what the owner before may not have got through."""
        pending = list(self.record.unconfirmed)
        await asyncio.gather(*(self.tools.recorder.publish(audit) for audit in pending))
        del self.record.unconfirmed[:]

    async def _save(self) -> None:
        """Write the record once for all who wait for the same write."""
        self._changes += 1
        mine = self._changes
        async with self._lock:
            if self._written >= mine:
                return
            covered = self._changes
            self.revision = await self.tools.store.save(self.key, self.record, self.revision)
            self._written = covered

    def _take(self, step: Step, outcome: Outcome, result: StepResult) -> None:
        self.record.steps[step.id].CopyFrom(result)
        self.results[step.id] = outcome.result
        fatal = outcome.outcome == FAILED and outcome.result is None
        if not fatal and (step.kind == "release" or len(self.record.steps) == len(self.workflow.steps)):
            self.record.status = DONE
        try:
            self.tools.store.check(self.record)
        except InvalidArgumentError:
            self._forget(step)
            raise

    def _forget(self, step: Step) -> None:
        """Drop what makes the record too large to write."""
        del self.record.steps[step.id], self.results[step.id]
        self.record.status = RUNNING
        if step.kind == "screen":
            del self.record.screened_messages[:]
            self.record.vault = b""

    def _result(self, step: Step, outcome: Outcome, began: float, seconds: float) -> StepResult:
        message = StepResult(
            step_id=step.id, outcome=outcome.outcome, attempt=self.record.epoch, latency_ms=seconds * 1000, code=outcome.code
        )
        message.started_at.CopyFrom(_timestamp(began))
        if outcome.result is not None:
            message.result.update(outcome.result)
        return message

    def _audit(self, step: Step, outcome: Outcome, began: float, seconds: float) -> StepRecorded:
        details = {**self.opening, **outcome.details}
        self.opening = {}
        record = build(
            tenant=self.request.caller.tenant,
            request_id=self.request.request_id,
            trace_id=self.request.trace_id,
            step=step.kind,
            step_id=step.id,
            epoch=self.record.epoch,
            outcome=outcome.outcome,
            code=outcome.code,
            details=details,
        )
        record.started_at.CopyFrom(_timestamp(began))
        record.duration_ms = seconds * 1000
        # Sealed with their key, so that an erasure reaches it.
        record.user, record.session_id = self.request.caller.user, self.request.session_id
        return record


def _timestamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(int(seconds * 1e9))
    return stamp
