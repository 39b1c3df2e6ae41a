"""The card of every check: what it does, where it runs, what was measured and on which data."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from guardrail.checks.base import Check
from guardrail.checks.foreign import STAGES, ForeignInputCheck, ForeignOutputCheck
from strata.guardrail.v1 import guardrail_service_pb2 as pb

CARDS_FILE = Path(__file__).parent / "checks" / "cards.yaml"


def cards(inputs: Iterable[Check[Any]], outputs: Iterable[Check[Any]]) -> list[pb.Card]:
    """Return the cards of the checks that run, by stage; raise KeyError for a check without one."""
    written: dict[str, dict[str, Any]] = yaml.safe_load(CARDS_FILE.read_text())
    stages = ((inputs, pb.STAGE_INPUT), (outputs, pb.STAGE_OUTPUT))
    return [_card(check, stage, written) for checks, stage in stages for check in checks]


def _card(check: Check[Any], stage: pb.Stage.ValueType, written: dict[str, dict[str, Any]]) -> pb.Card:
    if isinstance(check, ForeignInputCheck | ForeignOutputCheck):
        summary, measured, stage = check.declared.summary, check.declared.measured, STAGES[check.declared.stage]
    else:
        entry = written[check.name]
        summary, measured = entry["summary"], entry["measured"]
    return pb.Card(
        name=check.name,
        version=check.version,
        stage=stage,
        threshold=check.threshold,
        budget_ms=check.budget_ms,
        on_error=check.on_error,
        summary=" ".join(summary.split()),
        measured={name: str(value) for name, value in measured.items()},
    )
