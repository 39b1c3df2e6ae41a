"""Executes a workflow's graph: what is free runs at the same time, what finished is never repeated."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from grpc.aio import AioRpcError

from chassis import telemetry
from chassis.errors import DeadlineError, InternalError, InvalidArgumentError, ServiceError
from chassis.logging import get_logger
from orchestrator.records import StaleOwnerError
from orchestrator.runs import FAILED, Outcome, Run
from orchestrator.workflows import Step

log = get_logger("engine")
Kind = Callable[[Run, Step], Awaitable[Outcome]]
_ONLY_READS = frozenset({"screen", "route", "retrieve"})
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 1.0
# A step that the workflow can do without is not waited for until the deadline.
_ATTEMPTS_IF_OPTIONAL = 5


class StepFailedError(Exception):
    """A step failed, the failure is recorded, and the run ends with its code."""

    def __init__(self, step: str, code: str, message: str) -> None:
        """Keep the code for the client."""
        super().__init__(f"{step}: {message}")
        self.code = code


class Engine:
    """Runs steps by their kind."""

    def __init__(self, kinds: Mapping[str, Kind], *, attempts: int) -> None:
        """Know the kinds of steps, and how often a step is tried whose peer does not answer."""
        self._kinds, self._attempts = kinds, attempts

    async def execute(self, run: Run) -> None:
        """Run what is not finished; raise StepFailedError when a step fails, StaleOwnerError when the run is lost."""
        for name, result in run.record.steps.items():
            if result.outcome == FAILED and not result.HasField("result"):
                raise StepFailedError(name, result.code, "failed before")
        tasks: dict[asyncio.Task[None], Step] = {}
        try:
            await self._drive(run, tasks)
        finally:
            await _settle(tasks)
        release = run.workflow.release
        if run.ending is not None and release is not None and release.id not in run.results:
            await self._one(run, release)

    async def _drive(self, run: Run, tasks: dict[asyncio.Task[None], Step]) -> None:
        started = set(run.results)
        while run.ending is None:
            for step in run.workflow.steps.values():
                if step.id not in started and run.results.keys() >= set(step.needs):
                    started.add(step.id)
                    tasks[asyncio.create_task(self._one(run, step))] = step
            if not tasks:
                return
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                del tasks[task]
            # A lost run must stop before anything else is said about it.
            for error in sorted(filter(None, (t.exception() for t in done)), key=lambda e: not isinstance(e, StaleOwnerError)):
                raise error

    async def _one(self, run: Run, step: Step) -> None:
        """Take one step to its end and make it durable."""
        began, clock = time.time(), time.perf_counter()
        failure: ServiceError | None = None
        try:
            if step.when is not None and run.ending is None and not step.when.holds(run.scope()):
                outcome = Outcome(outcome="skipped")
            else:
                with telemetry.span(f"{step.kind} {step.id}"):
                    outcome = await self._attempt(run, step)
        except ServiceError as error:
            outcome, failure = _failed(run, step, error)
        seconds = time.perf_counter() - clock
        telemetry.STEP_SECONDS.labels(step=step.kind, outcome=outcome.outcome).observe(seconds)
        try:
            # A write that has left must be seen through, or the next one would not know its revision.
            await asyncio.shield(run.finish(step, outcome, began=began, seconds=seconds))
        except InvalidArgumentError as error:
            outcome, failure = Outcome(None, FAILED, error.code, {"error": str(error)}), error
            await asyncio.shield(run.finish(step, outcome, began=began, seconds=seconds))
        if failure is not None:
            raise StepFailedError(step.id, failure.code, str(failure))

    async def _attempt(self, run: Run, step: Step) -> Outcome:
        """Try a step until it ends, fails for good, or has no time left."""
        late = False
        delay, attempts = _FIRST_DELAY, min(self._attempts, _ATTEMPTS_IF_OPTIONAL) if _is_optional(step) else self._attempts
        for attempt in range(1, attempts + 1):
            try:
                return await self._once(run, step)
            except ServiceError as error:
                # A peer that starts again takes calls before it can answer them; one that only reads is asked once more.
                again = error.retryable or (isinstance(error, DeadlineError) and step.kind in _ONLY_READS and not late)
                if not again or attempt == attempts or run.remaining() <= delay:
                    raise
                late = late or isinstance(error, DeadlineError)
                log.info("step_retried", step=step.id, attempt=attempt, code=error.code, error=str(error))
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_DELAY)
        raise InternalError(f"step {step.id!r} may not be tried at all")

    async def _once(self, run: Run, step: Step) -> Outcome:
        seconds = run.timeout(step)
        if seconds <= 0:
            raise DeadlineError("the time of this request is up")
        try:
            async with asyncio.timeout(seconds):
                return await self._kinds[step.kind](run, step)
        except TimeoutError as error:
            raise DeadlineError(f"step {step.id!r} did not finish within {seconds:.2f} s") from error
        except (ServiceError, StaleOwnerError):
            raise
        except Exception as error:
            log.exception("step_crashed", step=step.id)
            raise InternalError(f"step {step.id!r} crashed") from error


def _is_optional(step: Step) -> bool:
    return step.spec.get("on_error") == "continue"


def _failed(run: Run, step: Step, error: ServiceError) -> tuple[Outcome, ServiceError | None]:
    """Return how a failure is recorded, and the error if it ends the run."""
    # What a peer says may quote what it was given.
    from_peer = isinstance(error.__cause__, AioRpcError)
    details = {} if from_peer else {"error": " ".join(str(error).split())[:300]}
    if _is_optional(step) and run.remaining() > 0:
        result = {"rows": [], "changed": 0, "truncated": False, "error": {"code": error.code, "message": str(error)}}
        return Outcome(result, FAILED, error.code, details), None
    if run.remaining() <= 0 and error.retryable:
        error = DeadlineError("the time of this request is up")
    return Outcome(None, FAILED, error.code, details), error


async def _settle(tasks: Mapping[asyncio.Task[None], Step]) -> None:
    """Let tools finish, whose effects must be recorded; stop everything else."""
    for task, step in tasks.items():
        if step.kind != "tool":
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
