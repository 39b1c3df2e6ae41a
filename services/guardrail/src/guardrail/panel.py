"""Runs checks side by side in threads, each within its budget, and keeps what each one said."""

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

from prometheus_client import Counter, Histogram

from chassis.logging import get_logger
from chassis.tasks import in_time
from guardrail.checks.base import Check, Decision, Finding

log = get_logger("guardrail")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
CHECK_SECONDS = Histogram("strata_guardrail_check_seconds", "Time of one check.", ["check"], buckets=_SECONDS)
CHECK_FLAGGED = Counter("strata_guardrail_check_flagged_total", "Texts that a check objected to.", ["check", "code"])
CHECK_ERRORS = Counter("strata_guardrail_check_errors_total", "Checks that failed or ran out of time.", ["check"])

S = TypeVar("S")
# What helps least comes first: nothing makes a blocked text better, and no repeat helps where nothing supports an answer.
_GRAVITY = (Decision.BLOCK, Decision.ESCALATE, Decision.ABSTAIN, Decision.REGENERATE, Decision.REDACT, Decision.ALLOW)


@dataclass(frozen=True)
class Outcome:
    """What one check said, how long it took, and its own error if it failed."""

    name: str
    version: str
    threshold: float
    finding: Finding
    latency_ms: float
    error: str = ""


class Panel(Generic[S]):
    """Several checks of the same kind of subject."""

    def __init__(self, checks: Iterable[Check[S]], pool: Executor) -> None:
        """Hold the checks; they share `pool`."""
        self.checks = tuple(checks)
        self._pool = pool

    def only(self, names: Collection[str]) -> "Panel[S]":
        """Return a panel of the checks with these names."""
        return Panel([check for check in self.checks if check.name in names], self._pool)

    async def judge(self, subject: S) -> tuple[Outcome, ...]:
        """Return the outcome of every check that ran, in their order: the cheap ones first, the others unless those block."""
        found: dict[str, Outcome] = {}
        for cheap in (True, False):
            checks = [check for check in self.checks if getattr(check, "cheap", False) is cheap]
            found.update(zip([c.name for c in checks], await asyncio.gather(*(self._run(c, subject) for c in checks)), strict=True))
            if any(outcome.finding.decision is Decision.BLOCK for outcome in found.values()):
                break
        return tuple(found[check.name] for check in self.checks if check.name in found)

    async def _run(self, check: Check[S], subject: S) -> Outcome:
        started, error = time.perf_counter(), ""
        loop = asyncio.get_running_loop()
        try:
            finding = await in_time(check.budget_ms / 1000, loop.run_in_executor(self._pool, check.run, subject))
        except TimeoutError:
            error, finding = f"no result within {check.budget_ms:.0f} ms", _unknown(check)
        except Exception as failure:
            # The text of an unforeseen error may hold personal data; only its kind is passed on.
            error, finding = f"failed with {type(failure).__name__}", _unknown(check)
            log.exception("check_failed", check=check.name)
        seconds = time.perf_counter() - started
        CHECK_SECONDS.labels(check=check.name).observe(seconds)
        if error:
            CHECK_ERRORS.labels(check=check.name).inc()
        if finding.flagged:
            CHECK_FLAGGED.labels(check=check.name, code=finding.code).inc()
        return Outcome(check.name, check.version, check.threshold, finding, seconds * 1000, error)


def _unknown(check: Check[S]) -> Finding:
    if check.on_error == "allow":
        return Finding()
    return Finding(score=1.0, decision=Decision.BLOCK, code="check_failed", reason=f"the check {check.name} gave no result")


def gravest(outcomes: Sequence[Outcome]) -> Finding:
    """Return the finding whose demand prevails; an empty one where nobody objects."""
    flagged = [outcome.finding for outcome in outcomes if outcome.finding.flagged]
    return min(flagged, key=lambda finding: _GRAVITY.index(finding.decision), default=Finding())


def detail(outcomes: Sequence[Outcome], name: str) -> object:
    """Return the detail of the check `name`, or None where it did not run."""
    return next((outcome.finding.detail for outcome in outcomes if outcome.name == name), None)
