"""Decides by Cedar policies which deployments may make a text of a conversation, and says which policies decided."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cedarpy

from chassis.clearing import Deployment
from chassis.logging import get_logger
from strata.gateway.v1.gateway_events_pb2 import Caller

log = get_logger("guardrail")
Sensitivity = Literal["none", "personal"]
POLICIES, SCHEMA = "policies.cedar", "schema.cedarschema"
_ACTION = 'Action::"generate"'
# For requests whose workflow names no domain.
BUILT_IN = """
@id("nothing-personal")
permit (principal, action == Action::"generate", resource) when { context.sensitivity == "none" };

@id("cleared-for-personal-data")
permit (principal, action == Action::"generate", resource) when { resource.cleared };
"""


class CedarFileError(OSError):
    """A file of policies cannot be used; the text names the file and the reason."""


@dataclass(frozen=True)
class Cleared:
    """The deployments that a conversation may go to, and the policies that let it or forbid it."""

    sensitivity: Sensitivity
    deployments: tuple[str, ...]
    policy_ids: tuple[str, ...]


@dataclass(frozen=True)
class _Policies:
    """Policies that were validated, and their own ids by those that the engine numbers them with."""

    text: str
    ids: Mapping[str, str]


class Clearances:
    """The policies of every domain over the deployments that there are."""

    def __init__(self, policies: Mapping[str, str], schema: str, deployments: Iterable[Deployment]) -> None:
        """Take policies in Cedar's language by domain; raise ValueError for one that the schema does not allow."""
        self._schema = schema
        self._policies = {domain: _validated(text, schema) for domain, text in {"": BUILT_IN, **policies}.items()}
        self._deployments = tuple(deployments)

    @classmethod
    def load(cls, domains: Path, deployments: Iterable[Deployment]) -> "Clearances":
        """Read the policies of every domain that has some, and their schema; raise CedarFileError."""
        paths = {path.parent.name: path for path in sorted(domains.glob(f"*/{POLICIES}"))}
        try:
            texts = {domain: path.read_text() for domain, path in paths.items()}
            return cls(texts, (domains / "schema" / SCHEMA).read_text(), deployments)
        except (OSError, ValueError) as error:
            raise CedarFileError(f"{domains}: {' '.join(str(error).split())}") from error

    def decide(self, domain: str, caller: Caller, sensitivity: Sensitivity) -> Cleared:
        """Return where a conversation may go; a policy that fails on these facts lets nothing through."""
        policies = self._policies.get(domain) or self._policies[""]
        allowed: list[str] = []
        ids: set[str] = set()
        for deployment in self._deployments:
            request = {
                "principal": _uid("Role", caller.role or "none"),
                "action": _ACTION,
                "resource": _uid("Deployment", deployment.name),
                "context": {"sensitivity": sensitivity},
            }
            result = cedarpy.is_authorized(request, policies.text, _entities(caller, deployment), self._schema)
            if result.diagnostics.errors:
                log.warning("clearance_failed", domain=domain, deployment=deployment.name, errors=len(result.diagnostics.errors))
                continue
            ids |= {policies.ids.get(reason, reason) for reason in result.diagnostics.reasons}
            if result.allowed:
                allowed.append(deployment.name)
        return Cleared(sensitivity, tuple(allowed), tuple(sorted(ids)))


def _validated(text: str, schema: str) -> _Policies:
    try:
        outcome = cedarpy.validate_policies(text, schema)
        static = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"not a policy: {error}") from error
    if not outcome.validation_passed:
        raise ValueError("; ".join(str(error) for error in outcome.errors))
    return _Policies(text, {number: policy.get("annotations", {}).get("id", number) for number, policy in static.items()})


def _uid(kind: str, name: str) -> str:
    return f"{kind}::{json.dumps(name)}"


def _entities(caller: Caller, deployment: Deployment) -> list[dict[str, object]]:
    tenant = {"type": "Tenant", "id": caller.tenant}
    attributes = {"cleared": deployment.cleared, "region": deployment.region, "kind": deployment.kind}
    return [
        {"uid": tenant, "attrs": {}, "parents": []},
        {"uid": {"type": "Role", "id": caller.role or "none"}, "attrs": {}, "parents": [tenant]},
        {"uid": {"type": "Deployment", "id": deployment.name}, "attrs": attributes, "parents": []},
    ]
