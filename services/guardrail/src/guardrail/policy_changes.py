"""Puts on record that a policy file is not what it was: which rules, in which versions, and who answers for them."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError

from chassis.errors import UnavailableError
from chassis.logging import get_logger
from chassis.messaging import Bus, canonical_json
from chassis.policy import Policy
from contracts.streams import POLICIES
from contracts.subjects import AUDIT
from strata.audit.v1.audit_events_pb2 import StepRecorded

log = get_logger("policy_changes")
STEP = "policy_changed"
# Policies belong to the installation, not to a tenant.
TENANT = "system"


def described(content: bytes, policy: Policy) -> dict[str, Any]:
    """Return what is remembered of a policy file: its digest, and each rule with version, owner and digest."""
    rules = [*policy.overrides, *policy.escalation]
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "version": policy.version,
        "rules": {
            rule.id: {
                "version": getattr(rule, "version", policy.version),
                "owner": getattr(rule, "owner", ""),
                "sha256": hashlib.sha256(canonical_json(rule.model_dump(mode="json"))).hexdigest(),
            }
            for rule in rules
        },
    }


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the ids of the rules that are new, gone, or say something else; and those that do so under the same version."""
    old, new = before.get("rules", {}), after["rules"]
    changed = [name for name in sorted(old.keys() & new.keys()) if old[name]["sha256"] != new[name]["sha256"]]
    return {
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "changed": changed,
        "changed_without_version": [name for name in changed if old[name]["version"] == new[name]["version"]],
    }


async def record_changes(bus: Bus, domains: Path, policies: Mapping[str, Policy]) -> None:
    """Compare every policy file with the last one on record and record the difference; raise UnavailableError when that fails."""
    try:
        bucket = await bus.js.key_value(POLICIES)
        for domain, policy in policies.items():
            after = described((domains / domain / "policy.yaml").read_bytes(), policy)
            try:
                entry = await bucket.get(domain)
                before, revision = json.loads(entry.value or b"{}"), entry.revision
            except KeyNotFoundError:
                before, revision = {}, 0
            if before.get("sha256") == after["sha256"]:
                continue
            # On record first: what is only remembered would never be told.
            await _publish(bus, domain, before, after)
            try:
                await bucket.update(domain, canonical_json(after), revision)
            except KeyWrongLastSequenceError:
                log.info("policy_change_known", domain=domain)
    except (TimeoutError, NatsError, JetStreamError) as error:
        raise UnavailableError(f"the policies on record cannot be compared: {error!r}") from error


async def _publish(bus: Bus, domain: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    old = str(before.get("sha256", ""))
    changes = differences(before, after)
    record_id = hashlib.sha256(f"policy/{domain}/{old}/{after['sha256']}".encode()).hexdigest()[:32]
    record = StepRecorded(
        record_id=record_id, tenant=TENANT, request_id=f"policy-{domain}", service="guardrail", step=STEP, attempt=1, outcome="succeeded"
    )
    record.started_at.FromDatetime(datetime.now(UTC))
    rules = {name: {"version": rule["version"], "owner": rule["owner"]} for name, rule in after["rules"].items()}
    record.details.update(
        {"domain": domain, "old_sha256": old, "new_sha256": after["sha256"], "version": after["version"], "rules": rules, **changes}
    )
    await bus.publish(AUDIT, AUDIT.at(tenant=TENANT, step=STEP), record, event_id=record_id, about=record.request_id)
    log.warning("policy_changed", domain=domain, old=old[:12], new=after["sha256"][:12], **changes)
