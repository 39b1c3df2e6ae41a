"""Takes requests on, or over from an owner that died, and tells the client how each ended."""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

from chassis import telemetry
from chassis.errors import NotFoundError, PermissionDeniedError, ServiceError, UnavailableError
from chassis.logging import get_logger
from chassis.messaging import Bus, LeaseLostError
from chassis.stops import StoppedError, Stops
from orchestrator.answers import Answer
from orchestrator.engine import Engine, StepFailedError
from orchestrator.recording import build
from orchestrator.records import StaleOwnerError
from orchestrator.runs import DONE, FAILED, RUNNING, Run, Tools
from orchestrator.workflows import Workflow
from strata.gateway.v1.gateway_events_pb2 import RequestAdmitted
from strata.orchestrator.v1.orchestrator_events_pb2 import ResponseReleased, RunRecord

log = get_logger("conductor")


class WorkflowChangedError(ServiceError):
    """A run was begun with a workflow that is not there any more."""

    default_code = "workflow_changed"


class Conductor:
    """Owns the runs of this instance."""

    def __init__(self, bus: Bus, tools: Tools, engine: Engine, stops: Stops) -> None:
        """Give this instance a name that no other has; what `stops` covers does not run."""
        self.instance = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._bus, self._tools, self._engine, self._stops = bus, tools, engine, stops
        self._running: dict[str, Run | None] = {}
        telemetry.OLDEST_RUN.set_function(self.oldest_age)
        telemetry.OVERDUE_RUNS.set_function(self.overdue)

    async def handle(self, request: RequestAdmitted) -> None:
        """Run a request to its end; raise LeaseLostError where another owner does, UnavailableError to be tried again."""
        key = _key(request)
        if key in self._running:
            # The bus thinks that we are dead while we are only slow; the run that is on its way acknowledges.
            raise LeaseLostError(key)
        self._running[key] = None
        try:
            if (run := await self._own(key, request)) is not None:
                self._running[key] = run
                await self._conduct(run)
        except StaleOwnerError as error:
            if await self._still_owner(self._running[key]):
                raise UnavailableError("a write was refused that should not have been; the run starts over from its record") from error
            log.info("run_lost", request_id=request.request_id)
            raise LeaseLostError(key) from error
        finally:
            del self._running[key]

    async def bury(self, request: RequestAdmitted, error: Exception) -> None:
        """Tell the client of a request that is given up, and mark its run."""
        found = await self._tools.store.load(_key(request))
        try:
            await self._reject(request, "internal_error", str(error) or repr(error))
        except UnavailableError:
            # The dead letter is a record too, and an error carries no text.
            await self._tell(request, "internal_error")
        if found is not None and found[0].status == RUNNING:
            found[0].status = FAILED
            with suppress(StaleOwnerError):
                await self._tools.store.save(_key(request), *found)

    def oldest_age(self) -> float:
        """Return the age in seconds of the oldest run in progress here; 0 when there is none."""
        started = [run.record.started_at.ToMilliseconds() / 1000 for run in self._running.values() if run is not None]
        return time.time() - min(started) if started else 0.0

    def overdue(self) -> float:
        """Return how many runs in progress here are beyond their deadline."""
        return float(sum(run is not None and run.remaining() < 0 for run in self._running.values()))

    async def _conduct(self, run: Run) -> None:
        try:
            await self._stops.guarded(self._engine.execute(run), tenant=run.request.caller.tenant, workflow=run.workflow.name)
        except StoppedError as error:
            await self._reject(run.request, error.code, str(error))
            await run.end(FAILED)
            return
        except StepFailedError as error:
            log.warning("run_failed", request_id=run.request.request_id, code=error.code, error=str(error))
            await run.answer.publish(_error(run.request, error.code))
            await run.end(FAILED)
            return
        log.info("run_done", request_id=run.request.request_id, steps=len(run.record.steps), epoch=run.record.epoch)

    async def _own(self, key: str, request: RequestAdmitted) -> Run | None:
        """Return the run to continue, or None when it is over already or was refused."""
        try:
            workflow = self._workflow(request)
            record = self._new_record(request, workflow)
            self._tools.store.check(record)
            self._stops.check(tenant=request.caller.tenant, workflow=workflow.name)
        except ServiceError as error:
            await self._reject(request, error.code, str(error))
            return None
        revision = await self._tools.store.create(key, record)
        if revision is None:
            return await self._take_over(key, request, workflow)
        opening = {"workflow": record.workflow, "owner": self.instance, "pins": dict(record.pins)}
        return self._run(request, workflow, record, revision, opening)

    async def _take_over(self, key: str, request: RequestAdmitted, workflow: Workflow) -> Run | None:
        found = await self._tools.store.load(key)
        if found is None:
            if await self._tools.store.is_purged(key):
                # Whose request it was is erased; it was over before.
                return None
            raise UnavailableError(f"the run record {key!r} was there and is not")
        record, revision = found
        if record.status != RUNNING:
            return None
        opening = {"workflow": record.workflow, "owner": self.instance, "owner_before": record.owner, "pins": dict(record.pins)}
        log.info("run_taken_over", request_id=request.request_id, before=record.owner, finished=sorted(record.steps))
        changed = record.pins["workflow"] != workflow.sha256
        if changed:
            opening["pins_before"] = dict(record.pins)
            opening["pins"] = dict(workflow.pins)
            record.pins.clear()
            record.pins.update(workflow.pins)
        record.owner, record.epoch = self.instance, record.epoch + 1
        run = self._run(request, workflow, record, await self._tools.store.save(key, record, revision), opening)
        await asyncio.gather(run.confirm(), run.answer.load())
        if run.answer.final is not None:
            await run.end(FAILED if run.answer.final.error_code else DONE)
            return None
        if changed and not record.steps.keys() <= workflow.steps.keys():
            error = WorkflowChangedError(f"{workflow.name} has changed and lacks steps that were done: {sorted(record.steps)}")
            await self._reject(request, error.code, str(error))
            await run.end(FAILED)
            return None
        return run

    def _workflow(self, request: RequestAdmitted) -> Workflow:
        workflow = self._tools.catalogue.workflows.get(request.workflow)
        if workflow is None:
            raise NotFoundError(f"unknown workflow {request.workflow!r}", code="model_not_found")
        if request.caller.role not in workflow.roles:
            raise PermissionDeniedError(f"the role {request.caller.role!r} may not run {workflow.name}")
        return workflow

    def _new_record(self, request: RequestAdmitted, workflow: Workflow) -> RunRecord:
        record = RunRecord(workflow=f"{workflow.name}@{workflow.version}", pins=workflow.pins, status=RUNNING, owner=self.instance, epoch=1)
        record.request.CopyFrom(request)
        # The message on the bus keeps the conversation; what was not screened is stored nowhere else.
        del record.request.messages[:]
        record.started_at.GetCurrentTime()
        batch = request.request_class == "batch"
        bound = self._tools.settings.batch_deadline_seconds if batch else max(workflow.deadlines_seconds.values())
        accepted = request.received_at.ToMilliseconds() or record.started_at.ToMilliseconds()
        record.deadline.FromMilliseconds(int(accepted + bound * self._tools.settings.deadline_factor * 1000))
        return record

    def _run(self, request: RequestAdmitted, workflow: Workflow, record: RunRecord, revision: int, opening: Mapping[str, object]) -> Run:
        answer = Answer(self._bus, request, self._tools.settings.state_dir)
        return Run(request, workflow, record, revision, self._tools, answer, dict(opening))

    async def _reject(self, request: RequestAdmitted, code: str, message: str) -> None:
        """Record that a request cannot be run, and tell its client once."""
        log.warning("request_rejected", request_id=request.request_id, code=code, error=message)
        record = build(
            tenant=request.caller.tenant,
            request_id=request.request_id,
            trace_id=request.trace_id,
            step="response",
            step_id="",
            epoch=1,
            outcome="rejected",
            code=code,
            details={"error": " ".join(message.split())[:300]},
        )
        # The same record for every attempt to tell it.
        record.started_at.CopyFrom(request.received_at)
        await self._tools.recorder.publish(record)
        await self._tell(request, code)

    async def _tell(self, request: RequestAdmitted, code: str) -> None:
        """Tell a client that there will be no answer, unless there is one."""
        answer = Answer(self._bus, request, self._tools.settings.state_dir)
        await answer.load()
        if answer.final is None:
            await answer.publish(_error(request, code))

    async def _still_owner(self, run: Run | None) -> bool:
        if run is None:
            return False
        found = await self._tools.store.load(run.key)
        return found is None or (found[0].owner, found[0].epoch) == (self.instance, run.record.epoch)


def _key(request: RequestAdmitted) -> str:
    return f"{request.caller.tenant}.{request.request_id}"


def _error(request: RequestAdmitted, code: str) -> ResponseReleased:
    return ResponseReleased(request_id=request.request_id, trace_id=request.trace_id, error_code=code)
