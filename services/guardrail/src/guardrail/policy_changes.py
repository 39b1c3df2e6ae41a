"""What of this installation is policy, and is put on record when it is not what it was at the last start."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cedarpy
import yaml

from chassis.clearing import Deployment
from chassis.messaging import Bus
from chassis.policy import Policy
from chassis.policy_changes import described, record_change, rule, settings_described
from guardrail.clearance import POLICIES, SCHEMA
from guardrail.settings import Settings
from strata.guardrail.v1.guardrail_service_pb2 import Card, Stage

# Of the settings, those that say what passes; `canaries` are secrets and stay out.
SETTINGS = (
    "input_checks",
    "output_checks",
    "check_budget_ms",
    "pii_threshold",
    "pii_quasi",
    "pii_reported",
    "business_identifiers",
    "leak_types",
    "grounding_threshold",
    "safety_blocked",
    "link_hosts",
    "canary_rotation_seconds",
    "max_characters",
    "max_answer_characters",
    "prompt_leak_words",
    "extract_notices",
    "default_deadline_seconds",
    "session_retention_seconds",
    "session_purpose",
)
# Files of a domain that are policy, with the list in them whose entries have names.
_LISTED = {"domain.yaml": "roles", "tools.yaml": "tools"}


def of_policies(domains: Path, policies: Mapping[str, Policy]) -> dict[str, dict[str, Any]]:
    """Return what is remembered of every `policy.yaml`, by domain: escalations with version and owner, overrides with the file's."""
    found = {}
    for domain, policy in policies.items():
        rules = {
            one.id: rule(one.model_dump(mode="json"), version=getattr(one, "version", policy.version), owner=getattr(one, "owner", ""))
            for one in (*policy.overrides, *policy.escalation)
        }
        content = (domains / domain / "policy.yaml").read_bytes()
        found[domain] = described(rules, content=content, version=policy.version)
    return found


def of_files(domains: Path) -> dict[str, dict[str, Any]]:
    """Return what is remembered of Cedar's policies and their schema, roles and tools, by `domain/file`."""
    found = {}
    for path in sorted(domains.glob(f"*/{POLICIES}")):
        static = json.loads(cedarpy.policies_to_json_str(path.read_text()))["staticPolicies"]
        rules = {policy.get("annotations", {}).get("id", number): rule(policy) for number, policy in static.items()}
        found[f"{path.parent.name}/{POLICIES}"] = described(rules, content=path.read_bytes())
    if (schema := domains / "schema" / SCHEMA).is_file():
        found[f"schema/{SCHEMA}"] = described({"schema": rule(schema.read_text())}, content=schema.read_bytes())
    for name, key in _LISTED.items():
        for path in sorted(domains.glob(f"*/{name}")):
            listed = (yaml.safe_load(path.read_text()) or {}).get(key) or ()
            rules = {str(one["name"]): rule(one, version=str(one.get("version", ""))) for one in listed}
            found[f"{path.parent.name}/{name}"] = described(rules, content=path.read_bytes())
    return found


def of_process(settings: Settings, cards: Iterable[Card], deployments: Iterable[Deployment]) -> dict[str, dict[str, Any]]:
    """Return what is remembered of this process: its settings, its checks as they run, and what deployments are cleared for."""
    checks = {
        f"{Stage.Name(card.stage).removeprefix('STAGE_').lower()}.{card.name}": rule(
            [card.version, card.threshold, card.budget_ms, card.on_error], version=card.version
        )
        for card in cards
    }
    cleared = {
        one.name: rule([one.kind, one.region, one.cleared], shown="cleared" if one.cleared else "not cleared") for one in deployments
    }
    found = {
        "guardrail/settings": settings_described(settings, SETTINGS),
        "guardrail/checks": described(checks),
        "deployments/clearance": described(cleared),
    }
    if settings.foreign_file is not None:
        content = settings.foreign_file.read_bytes()
        found["guardrail/foreign"] = described({"file": rule(hashlib.sha256(content).hexdigest())}, content=content)
    return found


async def record_changes(bus: Bus, current: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare everything with the last on record and record the differences; raise UnavailableError when that fails."""
    for label, after in current.items():
        await record_change(bus, label, after)
