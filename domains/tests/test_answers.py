"""The answers that need no model: templates of the workflows over real rows of the domains' tables."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

ROOT = Path(__file__).parent.parent
JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
FAILED = {"rows": [], "changed": 0, "truncated": False, "error": {"code": "tool_timeout", "message": "took too long"}}


def steps(domain: str, workflow: str) -> dict[str, dict[str, Any]]:
    """Return the steps of a workflow by their identifiers."""
    content = yaml.safe_load((ROOT / domain / "workflows" / f"{workflow}.yaml").read_text())
    return {step["id"]: step for step in content["steps"]}


def result(domain: str, name: str, **arguments: str) -> dict[str, Any]:
    """Run one tool's statement on fresh tables, as a step's result."""
    database = sqlite3.connect(":memory:")
    database.row_factory = sqlite3.Row
    database.executescript((ROOT / domain / "tables.sql").read_text())
    tool = next(t for t in yaml.safe_load((ROOT / domain / "tools.yaml").read_text())["tools"] if t["name"] == name)
    bound = {"call_id": "call-1", **dict.fromkeys(tool["parameters"]["properties"]), **arguments}
    rows = [dict(row) for row in database.execute(tool["sql"], bound)]
    return {"rows": rows[: tool["max_rows"]], "changed": 0, "truncated": len(rows) > tool["max_rows"]}


def desk(**ran: dict[str, Any]) -> str:
    """Render the front desk's answer; steps that are not named were skipped."""
    names = ("refills", "hours", "booking", "appointments", "slots")
    text = steps("healthcare", "healthcare-triage")["desk"]["text"]
    return JINJA.from_string(text).render({**dict.fromkeys(names), **ran})


def retail(template: str, **results: dict[str, Any] | None) -> str:
    """Render one of the help desk's answers."""
    return JINJA.from_string(steps("retail", "retail-help")[template]["text"]).render(results)


def test_the_desk_joins_what_several_tools_found() -> None:
    """Refills and opening hours asked in one message are answered in one text."""
    answer = desk(refills=result("healthcare", "refill_status", patient_id="P-1001"), hours=result("healthcare", "opening_hours"))

    assert "- lisinopril 10 mg: ready, pick up from " in answer
    assert "- atorvastatin 20 mg: needs review, refills left: 0" in answer
    assert "- pharmacy: Mon 08:30-19:00, " in answer
    assert "Sat 09:00-13:00" in answer


def test_the_desk_lists_appointments_and_free_slots() -> None:
    """Booked and free appointments name the doctor and the number to book with."""
    answer = desk(appointments=result("healthcare", "find_appointments", patient_id="P-1001"), slots=result("healthcare", "free_slots"))

    assert "- Your appointment SL-1001: " in answer
    assert "with Dr. Amara Osei (family medicine), blood pressure check" in answer
    assert answer.count("- Free: SL-2") == 4


def test_the_desk_says_whether_a_booking_was_made() -> None:
    """A free slot is booked; a taken one is said to be gone."""
    free = desk(booking=result("healthcare", "book_appointment", slot_id="SL-2001", patient_id="P-1001"))
    taken = desk(booking=result("healthcare", "book_appointment", slot_id="SL-1001", patient_id="P-1002"))

    assert free.startswith("Your appointment SL-2001 on ")
    assert taken.startswith("That appointment is no longer free.")


def test_the_desk_helps_where_no_tool_ran_and_where_one_failed() -> None:
    """Without a tool the desk says what it can do; after a failure it says that the records cannot be read."""
    assert desk().startswith("I can look up appointments")
    assert desk(refills=FAILED, hours=result("healthcare", "opening_hours")).startswith("The clinic's records cannot be read")


def test_stock_is_answered_for_one_store_and_for_many() -> None:
    """One store is answered with its hours; without a store the fullest ones are listed."""
    one = result("retail", "stock_by_store", product="do you have hiking boots", store="S-0104")
    all_stores = result("retail", "stock_by_store", product="Any Hiking Boots left?")
    store = result("retail", "store_details", store="S-0104")

    assert retail("stock_answer", stock=one, store=store) == (
        "- Hiking Boots, store S-0104 (Denver): 26 in stock\nStore S-0104 is open from 09:00 to 22:00."
    )
    assert "and 7 more stores." in retail("stock_answer", stock=all_stores, store=None)
    assert retail("stock_answer", stock=result("retail", "stock_by_store", product="unicorn"), store=None).startswith("I could not find")


@pytest.mark.parametrize(
    ("template", "results", "expected"),
    [
        ("loyalty_answer", {"loyalty": ("loyalty_points", {"member_id": "M-100231"})}, "You have 2877 points (Bronze member)."),
        ("loyalty_answer", {"loyalty": ("loyalty_points", {"member_id": "M-999999"})}, "I could not find a loyalty account"),
        ("loyalty_answer", {"loyalty": None}, "Please sign in"),
        ("order_answer", {"order": ("order_status", {"order_id": "#W4817420"})}, "Order #W4817420 is delivered: "),
        ("order_answer", {"order": ("order_status", {"order_id": "#W0000000"})}, "I could not find an order"),
        ("order_answer", {"order": None}, "Please give your order number"),
    ],
)
def test_loyalty_and_orders_are_answered_from_rows(template: str, results: dict[str, Any], expected: str) -> None:
    """Found, unknown and missing numbers each have their own answer."""
    ran = {name: call and result("retail", call[0], **call[1]) for name, call in results.items()}

    assert retail(template, **ran).startswith(expected)


@pytest.mark.parametrize("template", ["stock_answer", "loyalty_answer", "order_answer"])
def test_a_failed_tool_is_said_plainly(template: str) -> None:
    """A tool that failed makes a clear answer and never an invented one."""
    answer = retail(template, stock=FAILED, store=None, loyalty=FAILED, order=FAILED)

    assert "cannot be read at the moment" in answer
