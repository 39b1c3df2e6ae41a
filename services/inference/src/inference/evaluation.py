"""The suites `tools` and `generation` of `strata eval`, by the gateway and the engine that serve."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jsonschema import Draft202012Validator, SchemaError
from numpy.typing import NDArray

from chassis.errors import InternalError, ServiceError
from chassis.settings import load as load_settings
from encoders.evaluation import Indices, Outcome, Row, measured, read_rows
from inference import call_scoring, deployments
from inference.call_scoring import CallScore, Made, Wanted
from inference.configuration import Models
from inference.evaluation_engine import serving
from inference.generation import ModelGateway, Result
from inference.providers.base import Job, Message, Tool
from inference.providers.streaming import Timeouts
from inference.settings import Settings

T = TypeVar("T")
_ROLES = ("system", "developer", "user", "assistant", "tool")
_CONCURRENT = 8
_MAX_TOKENS = 256
_PATIENCE = Timeouts(5, 300, 120, 600)


def tools(data: Path, *, options: dict[str, str]) -> dict[str, object]:
    """Score which tools are called and with what, on a tier (option `tier`, default small); raise ValueError for malformed data."""
    rows = read_rows(data, {"messages": _messages, "tools": _tools, "expected": _expected})
    settings = load_settings(Settings)
    with serving(settings, options) as config:

        async def judge(gateway: ModelGateway, row: Row) -> CallScore:
            job = Job(
                _turns(row), _MAX_TOKENS, tools=tuple(Tool(t["name"], t.get("description", ""), t["parameters"]) for t in row["tools"])
            )
            wanted = [Wanted(call["name"], call["arguments"]) for call in row["expected"]]
            offered = {tool["name"]: tool["parameters"] for tool in row["tools"]}
            return call_scoring.score(await _called(gateway, options, job), wanted, offered)

        outcome, seconds = asyncio.run(_run(config, settings, rows, judge))
    return _tools_report(outcome, seconds, _versions(config, options))


async def _called(gateway: ModelGateway, options: Mapping[str, str], job: Job) -> list[Made]:
    """Return the calls of a turn; a decision of the model that nobody can read is none."""
    result = await _generated(gateway, options, job)
    return [Made(call.name, json.loads(call.arguments_json)) for call in result.outcome.calls] if result else []


async def _generated(gateway: ModelGateway, options: Mapping[str, str], job: Job) -> Result | None:
    """Return the whole generation, or None for one that the gateway refused to hand out."""
    result = Result()
    candidates = gateway.resolve(tier=options.get("tier", "small"), adapter=options.get("adapter", ""), tenant="")
    try:
        async for _ in gateway.generate(candidates, job, result):
            pass
    except InternalError:
        return None
    return result


async def _run(
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


def _tools_report(outcome: Outcome[CallScore], seconds: float, versions: Mapping[str, str]) -> dict[str, Any]:
    results = outcome.results
    asked = np.array([bool(row["expected"]) for row in outcome.rows], dtype=np.bool_)
    right = np.array([result.all_right for result in results], dtype=np.float64)
    named = np.array([result.names_right for result in results], dtype=np.float64)
    made_up = np.array([result.hallucinated for result in results], dtype=np.float64)
    arguments = np.array([(result.right, result.stated) for result in results], dtype=np.float64).reshape(-1, 2)

    def share(values: NDArray[np.float64], chosen: NDArray[np.bool_]) -> float | None:
        return float(values[chosen].mean()) if chosen.any() else None

    def argument_accuracy(index: Indices) -> float | None:
        good, stated = arguments[index].sum(axis=0)
        return float(good / stated) if stated else None

    measures: dict[str, Callable[[Indices], float | None]] = {
        "call_accuracy": lambda index: share(right[index], asked[index]),
        "name_accuracy": lambda index: share(named[index], asked[index]),
        "argument_accuracy": argument_accuracy,
        "hallucinated_call_rate": lambda index: float(made_up[index].mean()) if len(index) else None,
        "irrelevance_accuracy": lambda index: share(right[index], ~asked[index]),
    }
    report = outcome.report("tools", versions) | measured(measures, len(results))
    report["throughput_per_s"] = round(len(results) / seconds, 2) if seconds else 0.0
    groups = np.array([row.get("group", "all") for row in outcome.rows], dtype=object)
    places = {str(name): np.flatnonzero(groups == name) for name in sorted(set(groups))}
    report["groups"] = {
        name: {"n": len(index)} | {key: _rounded(measure(index)) for key, measure in measures.items()} for name, index in places.items()
    }
    return report


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _versions(config: Models, options: Mapping[str, str]) -> dict[str, str]:
    spec = config.deployments[options.get("deployment", "local")]
    decides = spec.tools or ("native" if spec.kind == "openai" else "constrained")
    return {"model": spec.base_model, "tools": decides, "tool_relevance": str(spec.tool_relevance)}


def _turns(row: Row) -> tuple[Message, ...]:
    return tuple(Message(turn["role"], turn["content"]) for turn in row["messages"])


def _messages(value: Any) -> str | None:
    good = isinstance(value, list) and value and all(isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in value)
    if not good:
        return "must be a list of {role, content} that is not empty"
    unknown = [turn.get("role") for turn in value if turn.get("role") not in _ROLES]
    return f"has the unknown role {unknown[0]!r}; known: {list(_ROLES)}" if unknown else None


def _tools(value: Any) -> str | None:
    if not isinstance(value, list) or not value:
        return "must be a list of tools that is not empty"
    for tool in value:
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str) or not isinstance(tool.get("parameters"), dict):
            return "must hold {name, description, parameters: JSON Schema}"
        try:
            Draft202012Validator.check_schema(tool["parameters"])
        except SchemaError as error:
            return f"has parameters of {tool['name']!r} that are no JSON Schema: {error.message[:200]}"
    return None


def _expected(value: Any) -> str | None:
    good = isinstance(value, list) and all(
        isinstance(call, dict)
        and isinstance(call.get("name"), str)
        and isinstance(call.get("arguments"), dict)
        and all(isinstance(allowed, list) for allowed in call["arguments"].values())
        for call in value
    )
    return None if good else "must be a list of {name, arguments: {name: [values that are right]}}"
