"""Puts on record that something which is policy is not what it was: files, settings, checks, clearances."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from pydantic import BaseModel

from chassis.errors import UnavailableError
from chassis.logging import get_logger
from chassis.messaging import Bus, canonical_json
from contracts.streams import POLICIES
from contracts.subjects import AUDIT, audit_step
from strata.audit.v1.audit_events_pb2 import StepRecorded

log = get_logger("policy_changes")
STEP = "policy_changed"
# Policies belong to the installation, not to a tenant.
TENANT = "system"


def rule(value: object, *, version: str = "", owner: str = "", shown: object = None) -> dict[str, Any]:
    """Return what is remembered of one rule: version, owner, digest, and what it says where `shown` does."""
    kept = {"version": version, "owner": owner, "sha256": hashlib.sha256(canonical_json(value)).hexdigest()}
    return kept if shown is None else {**kept, "says": shown}


def described(rules: Mapping[str, Mapping[str, Any]], *, content: bytes | None = None, version: str = "") -> dict[str, Any]:
    """Return what is remembered of rules: the digest of their file, or without one of the rules themselves, and each rule."""
    body = canonical_json({name: one["sha256"] for name, one in rules.items()}) if content is None else content
    return {"sha256": hashlib.sha256(body).hexdigest(), "version": version, "rules": {name: dict(one) for name, one in rules.items()}}


def settings_described(settings: BaseModel, names: Iterable[str]) -> dict[str, Any]:
    """Return what is remembered of the settings that are policy, with their values; never name a secret here."""
    values = settings.model_dump(mode="json", include=set(names))
    return described({name: rule(value, shown=json.dumps(value)) for name, value in values.items()})


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the ids of the rules that are new, gone, or say something else; and those that do so under the same version."""
    old, new = before.get("rules", {}), after["rules"]
    changed = [name for name in sorted(old.keys() & new.keys()) if old[name]["sha256"] != new[name]["sha256"]]
    return {
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "changed": changed,
        "changed_without_version": [name for name in changed if new[name]["version"] and old[name]["version"] == new[name]["version"]],
    }


async def record_change(bus: Bus, label: str, after: Mapping[str, Any]) -> bool:
    """Record the difference to what was last on record under a label, such as `retail/policies.cedar`; return whether there was one.

    Where nothing was ever ruled, there is nothing to tell. Raises UnavailableError when the bus does not answer.
    """
    try:
        bucket = await bus.js.key_value(POLICIES)
        try:
            entry = await bucket.get(label)
            before, revision = json.loads(entry.value or b"{}"), entry.revision
        except KeyNotFoundError:
            before, revision = {}, 0
        if before.get("sha256") == after["sha256"] or not (before or after["rules"]):
            return False
        # On record first: what is only remembered would never be told.
        await _publish(bus, label, before, after)
        try:
            await bucket.update(label, canonical_json(after), revision)
        except KeyWrongLastSequenceError:
            log.info("policy_change_known", domain=label)
    except (TimeoutError, NatsError, JetStreamError) as error:
        raise UnavailableError(f"the policies on record cannot be compared: {error!r}") from error
    return True


async def _publish(bus: Bus, label: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    old = str(before.get("sha256", ""))
    changes = differences(before, after)
    record_id = hashlib.sha256(f"policy/{label}/{old}/{after['sha256']}".encode()).hexdigest()[:32]
    name = label.replace("/", "-").replace(".", "-")
    record = StepRecorded(
        record_id=record_id, tenant=TENANT, request_id=f"policy-{name}", service=bus.name, step=STEP, attempt=1, outcome="succeeded"
    )
    record.started_at.FromDatetime(datetime.now(UTC))
    rules = {rule_id: {key: value for key, value in one.items() if key != "sha256"} for rule_id, one in after["rules"].items()}
    record.details.update(
        {"domain": label, "old_sha256": old, "new_sha256": after["sha256"], "version": after["version"], "rules": rules, **changes}
    )
    await bus.publish(AUDIT, AUDIT.at(tenant=TENANT, step=audit_step(STEP, bus.name)), record, event_id=record_id, about=record.request_id)
    log.warning("policy_changed", domain=label, old=old[:12], new=after["sha256"][:12], **changes)
