"""Which steps run for which message: the conditions of the workflows, evaluated over stand-in results."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

ROOT = Path(__file__).parent.parent
JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
SIGNED_IN = {"patient_id": "P-1001", "member_id": "M-100231"}


def ran(workflow: str, intent: str, message: str, *, found: int = 1, context: dict[str, Any] | None = None) -> set[str]:
    """Return the identifiers of the steps whose conditions hold, beside the ones that always run."""
    facts: dict[str, Any] = {"request": {"message": message, "context": SIGNED_IN if context is None else context}}
    facts["caller"] = {"tenant": "acme", "role": "any"}
    results = {
        "route": {"intent": intent},
        "retrieve": {"items": [{"title": "t"}] * found},
        "tool": {"rows": []},
        "escalate": {"reason": "urgent_symptom"},
    }
    for step in yaml.safe_load((ROOT / workflow).read_text())["steps"]:
        holds = "when" not in step or JINJA.compile_expression(step["when"], undefined_to_none=False)(**facts)
        facts[step["id"]] = results.get(step["kind"], {"text": "x"}) if holds else None
    always = {"request", "caller", "input", "route", "release"}
    return {name for name, value in facts.items() if value is not None} - always


TRIAGE, RETAIL = "healthcare/workflows/healthcare-triage.yaml", "retail/workflows/retail-help.yaml"


@pytest.mark.parametrize(
    ("intent", "message", "expected"),
    [
        ("administrative", "When does the pharmacy open?", {"hours", "desk"}),
        ("administrative", "Is my prescription ready, and what are your hours?", {"refills", "hours", "desk"}),
        ("medication", "I need a refill of metformin", {"refills", "desk"}),
        ("medication", "Can I take aspirin with alcohol?", {"passages", "answer"}),
        ("symptom_triage", "My child has a fever", {"passages", "answer"}),
        ("administrative", "When is my next appointment?", {"appointments", "desk"}),
        ("administrative", "I want to book an appointment", {"appointments", "slots", "desk"}),
        ("administrative", "Please take SL-2001 for me", {"booking", "desk"}),
        ("administrative", "Where can I park?", {"desk"}),
        ("urgent", "I cannot feel my arm", {"urgent"}),
        ("administrative", "When do you open? I have chest pain", {"urgent"}),
        ("unsupported", "Who won the cup?", {"unsupported"}),
        ("a label that nobody knows", "?", {"unsupported"}),
    ],
)
def test_triage_takes_one_path(intent: str, message: str, expected: set[str]) -> None:
    """Administrative messages meet no model, urgent ones nothing but a person, and every message has exactly one answer."""
    assert ran(TRIAGE, intent, message) == expected


@pytest.mark.parametrize(
    ("intent", "message", "expected"),
    [
        ("stock", "Do you have tents in store S-0104?", {"stock", "store", "stock_answer"}),
        ("stock", "Do you have tents?", {"stock", "stock_answer"}),
        ("loyalty", "How many points do I have?", {"loyalty", "loyalty_answer"}),
        ("order", "Where is #W4817420?", {"order", "order_answer"}),
        ("order", "Where is my order?", {"order_answer"}),
        ("policy", "May I return shoes?", {"passages", "answer"}),
        ("unsupported", "How tall is Mont Blanc?", {"unsupported"}),
    ],
)
def test_the_help_desk_takes_one_path(intent: str, message: str, expected: set[str]) -> None:
    """Lookups meet no model; only policy searches documents."""
    assert ran(RETAIL, intent, message) == expected


@pytest.mark.parametrize(("workflow", "intent"), [(TRIAGE, "symptom_triage"), (RETAIL, "policy")])
def test_nothing_found_is_said_without_a_model(workflow: str, intent: str) -> None:
    """When the search returns nothing the model is not asked to make something up."""
    assert ran(workflow, intent, "What about gnomes?", found=0) == {"passages", "not_found"}


def test_who_is_not_signed_in_reaches_no_records() -> None:
    """Without a patient or member number in the context no tool with personal records is called."""
    assert ran(TRIAGE, "administrative", "Is my prescription refill ready? Do I have an appointment?", context={}) == {"desk"}
    assert ran(RETAIL, "loyalty", "How many points?", context={}) == {"loyalty_answer"}
