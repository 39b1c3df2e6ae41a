"""`strata fairness`: outcomes by declared group, and the same message under many names; both can be published as signals."""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from datetime import UTC, datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cli import counterfactuals
from cli.connection import bus
from cli.leaving import InputError
from cli.options import DEFAULT_STATE, AsJson, State, print_json
from cli.place import at, repository
from contracts.subjects import FAIRNESS
from strata.guardrail.v1.guardrail_events_pb2 import FairnessMeasured, GroupOutcome

app = typer.Typer(no_args_is_help=True, help="Whether people fare differently.")
out = Console()
Publish = Annotated[bool, typer.Option("--publish", help="Publish the figures as signals on the bus of a running stack.")]


@app.command()
def report(
    data: Annotated[Path, typer.Option(help="JSON lines of {flagged, groups: {attribute: group}, label?}.", exists=True)],
    state: State = DEFAULT_STATE,
    *,
    publish: Publish = False,
    as_json: AsJson = False,
) -> None:
    """Compare what became of people by their declared groups; ends with 1 where a difference is more than chance."""
    # Its statistics take seconds to import, which no other command should wait for.
    from cli import disparities

    result = _of_input(lambda: disparities.report(disparities.read(data)))
    if publish:
        asyncio.run(_publish(state, list(_of_report(result))))
    _print(result, as_json=as_json)
    if any(metric["alarm"] for table in result["attributes"].values() for metric in table.values()):
        raise typer.Exit(1)


@app.command()
def counterfactual(
    names: Annotated[Path, typer.Option(help="CSV of names with First_last, gender and ethnicity, as BBQ has it.", exists=True)],
    state: State = DEFAULT_STATE,
    *,
    publish: Publish = False,
    as_json: AsJson = False,
) -> None:
    """Swap names in the same messages and report how often checks, and route and triage after them, decide the same."""
    os.environ.setdefault("STRATA_HOME", str(repository()))
    before, after = (_loaded(f"strata.counterfactuals{stage}") for stage in ("", ".screened"))
    (screen,) = _loaded("strata.screens")
    stages = counterfactuals.Stages(before, screen, after)
    # What services log while they load belongs to nobody's JSON.
    with redirect_stdout(sys.stderr):
        result = _of_input(lambda: counterfactuals.compare(counterfactuals.read_names(names), stages))
    if publish:
        asyncio.run(_publish(state, list(_of_counterfactual(result))))
    _print(result, as_json=as_json)


def _loaded(group: str) -> list[Any]:
    return [entry.load() for entry in sorted(entry_points(group=group), key=lambda entry: entry.name)]


def _of_input(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error


def _print(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(result)
    else:
        out.print_json(json.dumps(result))


def _of_report(result: dict[str, Any]) -> Iterator[FairnessMeasured]:
    for attribute, table in result["attributes"].items():
        for metric, found in table.items():
            groups = [
                GroupOutcome(group=g, n=f["n"], rate=f["rate"], low=f["interval"][0], high=f["interval"][1])
                for g, f in found["groups"].items()
            ]
            yield FairnessMeasured(
                kind="report",
                attribute=attribute,
                metric=metric,
                groups=groups,
                disparity=found["disparity"],
                p_value=found["p_value"],
                alarm=found["alarm"],
                suppressed=found["suppressed"],
            )


def _of_counterfactual(result: dict[str, Any]) -> Iterator[FairnessMeasured]:
    for what, found in result["decisions"].items():
        for attribute, rates in found["groups"].items():
            groups = [GroupOutcome(group=g, n=r["n"], rate=r["rate"]) for g, r in rates.items()]
            disparity = found["disparity"][attribute]
            yield FairnessMeasured(kind="counterfactual", attribute=attribute, metric=what, groups=groups, disparity=disparity, p_value=1.0)


async def _publish(state: Path, signals: list[FairnessMeasured]) -> None:
    async with bus(at(state)) as connection:
        for signal in signals:
            signal.measured_at.FromDatetime(datetime.now(UTC))
            await connection.publish(FAIRNESS, FAIRNESS.at(), signal)
