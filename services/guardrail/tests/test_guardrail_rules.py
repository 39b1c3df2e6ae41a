"""Hard rules over every fact they may use, and the record of their changes."""

from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from chassis.clearing import Deployment
from chassis.messaging import connect, decode
from chassis.policy import load_policies
from contracts.subjects import AUDIT, ESCALATION
from guardrail.escalation import Rules, Subject, announce
from guardrail.policy_changes import of_files, of_policies, of_process, record_changes
from guardrail.settings import Settings
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.guardrail.v1 import guardrail_service_pb2 as pb
from strata.guardrail.v1.guardrail_events_pb2 import Escalated
from testkit.nats import NatsServer

RULE = (
    "  - {{id: {id}, version: '{version}', owner: desk, when: \"{when}\", at: {at}, reason: {id}, severity: high,"
    " deadline_seconds: 60, message: Wait.{more}}}\n"
)
WHEN = {
    "risk": ("risk.score > 0.5", "route"),
    "classes": ("route.request_class == 'safety_sensitive'", "route"),
    "amount": ("context.amount | float >= 500", "route"),
    "evidence": ("evidence.missing", "release"),
    "disagreement": ("disagreement and not checks.output.grounding.flagged", "release"),
}
CALM: dict[str, Any] = {"stage": "route", "route": {}, "context": {"amount": 3}, "risk": {"score": 0.1}}


def write(folder: Path, *, version: str = "1", amount: int = 500, more: str = "") -> Path:
    """Write a domain with one rule for each kind of fact."""
    (folder / "shop").mkdir(parents=True, exist_ok=True)
    lines = [RULE.format(id=name, version=version, when=when, at=at, more=more) for name, (when, at) in WHEN.items()]
    text = f"version: '1'\noverrides: []\nescalation:\n{''.join(lines)}"
    (folder / "shop" / "policy.yaml").write_text(text.replace(">= 500", f">= {amount}"))
    return folder


@pytest.mark.parametrize(
    ("facts", "rule"),
    [
        ({}, None),
        ({"risk": {"score": 0.7}}, "risk"),
        ({"route": {"request_class": "safety_sensitive"}}, "classes"),
        ({"context": {"amount": 900}}, "amount"),
        ({"context": {"amount": "900"}}, "amount"),
        ({"evidence": {"missing": True}}, None),
        ({"stage": "release", "evidence": {"missing": True}}, "evidence"),
        ({"stage": "release", "disagreement": True, "checks": {"output": {}}}, "disagreement"),
        ({"stage": "release", "risk": {"score": 0.7}}, None),
    ],
)
def test_a_rule_holds_on_its_facts_at_its_stage_alone(tmp_path: Path, facts: dict[str, Any], rule: str | None) -> None:
    """Risk, class, amount, missing evidence and disagreement each fire their rule, and only when it looks."""
    found = Rules(load_policies(write(tmp_path)), default_deadline_seconds=60).decide("shop", CALM | facts)

    assert (found.id if found else None) == rule


async def test_an_escalation_says_who_decides(tmp_path: Path, bus: NatsServer, admin: Client) -> None:
    """Number and roles of reviewers, owner and domain of the rule travel with the event."""
    policies = load_policies(write(tmp_path, more=", reviewers: 2, roles: [nurse]"))
    rule = Rules(policies, default_deadline_seconds=60).decide("shop", CALM | {"risk": {"score": 1}})
    connection = await connect(Settings(), "guardrail")
    await announce(connection, Subject("r1", "t1", Caller(tenant="acme"), "shop"), rule)
    await connection.drain()
    message = await admin.jetstream().get_msg("ESCALATIONS", 1)

    event: Escalated = decode(ESCALATION, message.data)
    assert (event.reviewers, list(event.reviewer_roles), event.owner, event.domain) == (2, ["nurse"], "desk", "shop")


async def test_a_changed_policy_is_on_record_once(tmp_path: Path, bus: NatsServer, admin: Client) -> None:
    """Old and new digest, rules and versions are recorded at the start that finds the change, and never again; silent edits stand out."""
    connection = await connect(Settings(), "guardrail")
    for changes in ({}, {}, {"amount": 300}, {"amount": 300}, {"amount": 200, "version": "2"}):
        folder = write(tmp_path, **changes)
        await record_changes(connection, of_policies(folder, load_policies(folder)))
    await connection.drain()
    js = admin.jetstream()
    found = [
        decode(AUDIT, (await js.get_msg("AUDIT", n)).data).details for n in range(1, (await js.stream_info("AUDIT")).state.last_seq + 1)
    ]

    assert [(d["old_sha256"] == "", list(d["changed"]), list(d["changed_without_version"])) for d in found] == [
        (True, [], []),
        (False, ["amount"], ["amount"]),
        (False, sorted(WHEN), []),
    ]
    assert found[1]["old_sha256"] == found[0]["new_sha256"]
    assert dict(found[2]["rules"]["amount"]) == {"version": "2", "owner": "desk"}


async def test_cedar_roles_tools_settings_checks_and_clearances_are_policy_too(tmp_path: Path, bus: NatsServer, admin: Client) -> None:
    """Each is on record at first, and again when it says something else, with the rule that changed; secrets are not among them."""
    folder = tmp_path / "shop"
    folder.mkdir()
    connection = await connect(Settings(), "guardrail")
    cedar = '@id("cleared-only") permit (principal, action, resource) when {{ resource.cleared == {} }};'
    for cleared, permissions, blocked, version in (("true", "[]", ["hate"], "1"), ("false", "[audit:erase]", [], "2")):
        (folder / "policies.cedar").write_text(cedar.format(cleared))
        (folder / "domain.yaml").write_text(f"name: shop\nroles: [{{name: clerk, permissions: {permissions}}}]\n")
        (folder / "tools.yaml").write_text("tools: [{name: stock, version: '1', roles: [clerk]}]\n")
        settings = Settings(safety_blocked=blocked, canaries=["a-planted-secret"])
        cards = [pb.Card(name="injection", stage=pb.STAGE_INPUT, version=version, on_error="block")]
        deployment = Deployment("local", "vllm", "", cleared == "true")
        await record_changes(connection, {**of_files(tmp_path), **of_process(settings, cards, [deployment])})
    await connection.drain()
    js = admin.jetstream()
    last = (await js.stream_info("AUDIT")).state.last_seq
    found = [decode(AUDIT, (await js.get_msg("AUDIT", number)).data).details for number in range(1, last + 1)]
    changed = {d["domain"]: (list(d["changed"]), list(d["changed_without_version"])) for d in found if d["old_sha256"]}

    assert {d["domain"] for d in found if not d["old_sha256"]} == {*changed, "shop/tools.yaml"}
    assert changed == {
        "shop/policies.cedar": (["cleared-only"], []),
        "shop/domain.yaml": (["clerk"], []),
        "guardrail/settings": (["safety_blocked"], []),
        "guardrail/checks": (["input.injection"], []),
        "deployments/clearance": (["local"], []),
    }
    settings_record = next(d for d in found if d["domain"] == "guardrail/settings" and d["old_sha256"])
    assert settings_record["rules"]["safety_blocked"]["says"] == "[]"
    assert "a-planted-secret" not in str(found)
