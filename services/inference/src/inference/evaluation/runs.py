"""Runs labelled rows through the model gateway, some at a time, for the suites of `strata eval`."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from chassis.errors import InternalError, ServiceError
from encoders.evaluation import Indices, Outcome, Row, measured
from inference import deployments
from inference.configuration import Models
from inference.generation import ModelGateway, Result
from inference.providers.base import Job, Message
from inference.providers.streaming import Timeouts
from inference.settings import Settings

T = TypeVar("T")
Measures = Mapping[str, Callable[[Indices], float | None]]
_ROLES = ("system", "developer", "user", "assistant", "tool")
_CONCURRENT = 8
_PATIENCE = Timeouts(5, 300, 120, 600)


async def generated(gateway: ModelGateway, options: Mapping[str, str], job: Job) -> Result | None:
    """Return the whole generation, or None for one that the gateway refused to hand out."""
    result = Result()
    candidates = gateway.resolve(tier=options.get("tier", "small"), adapter=options.get("adapter", ""), tenant="")
    try:
        async for _ in gateway.generate(candidates, job, result):
            pass
    except InternalError:
        return None
    return result


async def run(
    config: Models, settings: Settings, rows: Sequence[Row], judge: Callable[[ModelGateway, Row], Awaitable[T]]
) -> tuple[Outcome[T], float]:
    """Judge all rows, some at a time; one that the engine cannot take is invalid. Also return the seconds of it all."""
    served = deployments.connect(config, port=0, state_dir=settings.state_dir, timeouts=_PATIENCE)
    places, done, began = asyncio.Semaphore(_CONCURRENT), 0, time.perf_counter()

    async def one(row: Row) -> tuple[T, float] | None:
        nonlocal done
        async with places:
            started = time.perf_counter()
            try:
                result = await judge(ModelGateway(config, served), row)
            except ServiceError as error:
                print(f"row left out: {error}", file=sys.stderr)  # noqa: T201
                return None
            finally:
                done += 1
                if done % 20 == 0:
                    print(f"{done} of {len(rows)}", file=sys.stderr)  # noqa: T201
            return result, time.perf_counter() - started

    async with deployments.watched(served, 5.0):
        found = await asyncio.gather(*(one(row) for row in rows))
    outcome: Outcome[T] = Outcome()
    for row, result in zip(rows, found, strict=True):
        if result is None:
            outcome.invalid += 1
        else:
            outcome.rows.append(row)
            outcome.results.append(result[0])
            outcome.seconds.append(result[1])
    return outcome, time.perf_counter() - began


def report(suite: str, outcome: Outcome[T], seconds: float, versions: Mapping[str, str], measures: Measures) -> dict[str, Any]:
    """Return what all suites print: every measure with its interval, and again for each group of rows."""
    result = outcome.report(suite, versions) | measured(measures, len(outcome.rows))
    result["throughput_per_s"] = round(len(outcome.rows) / seconds, 2) if seconds else 0.0
    groups = np.array([row.get("group", "all") for row in outcome.rows], dtype=object)
    places = {str(name): np.flatnonzero(groups == name) for name in sorted(set(groups))}
    result["groups"] = {
        name: {"n": len(index)} | {key: _rounded(measure(index)) for key, measure in measures.items()} for name, index in places.items()
    }
    return result


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def versions_of(config: Models, options: Mapping[str, str]) -> dict[str, str]:
    """Return what was judged."""
    spec = config.deployments[options.get("deployment", "local")]
    decides = spec.tools or ("native" if spec.kind == "openai" else "constrained")
    return {"model": spec.base_model, "tools": decides, "tool_relevance": str(spec.tool_relevance)}


def turns(row: Row) -> tuple[Message, ...]:
    """Return the conversation of a row."""
    return tuple(Message(turn["role"], turn["content"]) for turn in row["messages"])


def check_messages(value: Any) -> str | None:
    """Return what is wrong with the conversation of a row."""
    good = isinstance(value, list) and value and all(isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in value)
    if not good:
        return "must be a list of {role, content} that is not empty"
    unknown = [turn.get("role") for turn in value if turn.get("role") not in _ROLES]
    return f"has the unknown role {unknown[0]!r}; known: {list(_ROLES)}" if unknown else None
