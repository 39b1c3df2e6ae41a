"""The suite `tools` of `strata eval`, by the gateway and the engine that serve."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chassis.json_schemas import Schema, SchemaRefusedError
from chassis.settings import load as load_settings
from encoders.evaluation import Indices, Outcome, Row, read_rows
from inference.evaluation import call_scoring
from inference.evaluation.call_scoring import CallScore, Made, Wanted
from inference.evaluation.runs import Measures, check_messages, generated, report, run, turns, versions_of
from inference.evaluation.serving import serving
from inference.generation import ModelGateway
from inference.providers.base import Job, Tool
from inference.settings import Settings

_MAX_TOKENS = 256


def tools(data: Path, *, options: dict[str, str]) -> dict[str, object]:
    """Score which tools are called and with what, on a tier (option `tier`, default small); raise ValueError for malformed data."""
    rows = read_rows(data, {"messages": check_messages, "tools": _tools, "expected": _expected})
    settings = load_settings(Settings)
    with serving(settings, options) as config:

        async def judge(gateway: ModelGateway, row: Row) -> CallScore:
            job = Job(
                turns(row), _MAX_TOKENS, tools=tuple(Tool(t["name"], t.get("description", ""), t["parameters"]) for t in row["tools"])
            )
            wanted = [Wanted(call["name"], call["arguments"]) for call in row["expected"]]
            offered = {tool["name"]: tool["parameters"] for tool in row["tools"]}
            return call_scoring.score(await _called(gateway, options, job), wanted, offered)

        outcome, seconds = asyncio.run(run(config, settings, rows, judge))
    return _report(outcome, seconds, versions_of(config, options))


async def _called(gateway: ModelGateway, options: Mapping[str, str], job: Job) -> list[Made]:
    """Return the calls of a turn; a decision of the model that nobody can read is none."""
    result = await generated(gateway, options, job)
    return [Made(call.name, json.loads(call.arguments_json)) for call in result.outcome.calls] if result else []


def _report(outcome: Outcome[CallScore], seconds: float, versions: Mapping[str, str]) -> dict[str, Any]:
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

    measures: Measures = {
        "call_accuracy": lambda index: share(right[index], asked[index]),
        "name_accuracy": lambda index: share(named[index], asked[index]),
        "argument_accuracy": argument_accuracy,
        "hallucinated_call_rate": lambda index: float(made_up[index].mean()) if len(index) else None,
        "irrelevance_accuracy": lambda index: share(right[index], ~asked[index]),
    }
    return report("tools", outcome, seconds, versions, measures)


def _tools(value: Any) -> str | None:
    if not isinstance(value, list) or not value:
        return "must be a list of tools that is not empty"
    for tool in value:
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str) or not isinstance(tool.get("parameters"), dict):
            return "must hold {name, description, parameters: JSON Schema}"
        try:
            Schema(tool["parameters"])
        except SchemaRefusedError as error:
            return f"has parameters of {tool['name']!r} that are refused: {error}"
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
