"""What can be asked for, and by whom: workflows and roles of the domains, tiers and adapters of inference."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from chassis import rpc
from chassis.errors import ServiceError
from chassis.logging import get_logger
from gateway.refusals import RefusedError
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.inference.v1.inference_service_pb2 import ListModelsRequest, ListModelsResponse, ModelEntry

log = get_logger("catalogue")
AUTO = "auto"
DEFAULT_DOMAIN, DEFAULT_WORKFLOW = "general", "chat"


@dataclass(frozen=True)
class Workflow:
    """A workflow as far as the gateway needs to know it."""

    name: str
    domain: str
    roles: frozenset[str]
    deadline_seconds: float


@dataclass(frozen=True)
class Target:
    """What `model` means."""

    workflow: Workflow
    tier: str = ""
    adapter: str = ""


class Catalogue:
    """Knows every name that a client may write as `model`."""

    def __init__(self, domains: Path) -> None:
        """Read the domains; raise FileNotFoundError without any, ValueError for a broken one."""
        self.workflows: dict[str, Workflow] = {}
        self.models: dict[str, ModelEntry] = {}
        self._permissions: dict[str, set[str]] = {}
        self._labels: dict[str, set[str]] = {}
        for path in sorted(domains.glob("*/domain.yaml")):
            self._read(path)
        if DEFAULT_WORKFLOW not in self.workflows:
            raise FileNotFoundError(f"no workflow {DEFAULT_WORKFLOW!r} under {domains}: set STRATA_HOME to the folder that holds domains/")
        self.started_at = int(time.time())

    def _read(self, path: Path) -> None:
        domain: dict[str, Any] = yaml.safe_load(path.read_text())
        for role in domain.get("roles", ()):
            self._permissions.setdefault(role["name"], set()).update(role.get("permissions", ()))
            self._labels.setdefault(role["name"], set()).update(role.get("labels", ()))
        for file in sorted(path.parent.glob("workflows/*.yaml")):
            flow: dict[str, Any] = yaml.safe_load(file.read_text())
            if flow["name"] in self.workflows:
                raise ValueError(f"{file}: workflow {flow['name']!r} is declared twice")
            self.workflows[flow["name"]] = Workflow(
                name=flow["name"],
                domain=domain["name"],
                roles=frozenset(flow.get("roles", ())),
                deadline_seconds=max(map(float, flow["deadlines_seconds"].values())),
            )

    def caller(self, *, tenant: str, role: str, user: str, key_id: str) -> Caller:
        """Return a caller with the rights of its role; a role that no domain declares has none."""
        return Caller(
            tenant=tenant,
            role=role,
            user=user,
            key_id=key_id,
            permissions=sorted(self._permissions.get(role, ())),
            labels=sorted(self._labels.get(role, ())),
        )

    def resolve(self, model: str, workflow: str, caller: Caller) -> Target:
        """Return what runs for `model`; raise RefusedError for a name that this caller may not use."""
        named = self._workflow(workflow, caller, "strata.workflow") if workflow else None
        if model in self.workflows:
            flow = self._workflow(model, caller, "model")
            if named is not None and named is not flow:
                raise RefusedError("invalid_request", "'model' and 'strata.workflow' name different workflows.", param="strata.workflow")
            return Target(flow)
        flow = named or self._workflow(DEFAULT_WORKFLOW, caller, "model")
        if model == AUTO:
            return Target(flow)
        entry = self.models.get(model)
        if entry is None or not _may_use(entry, caller):
            raise RefusedError("model_not_found", param="model")
        return Target(flow, adapter=model) if entry.kind == "adapter" else Target(flow, tier=model)

    def _workflow(self, name: str, caller: Caller, param: str) -> Workflow:
        flow = self.workflows.get(name)
        if flow is None or (flow.roles and caller.role not in flow.roles):
            raise RefusedError("model_not_found", param=param)
        return flow

    def visible(self, caller: Caller) -> Iterator[tuple[str, str]]:
        """Yield name and kind of all that `caller` may write as `model`."""
        allowed = [flow.name for flow in self.workflows.values() if not flow.roles or caller.role in flow.roles]
        if DEFAULT_WORKFLOW in allowed:
            yield AUTO, "auto"
        yield from ((name, "workflow") for name in allowed)
        if DEFAULT_WORKFLOW in allowed:
            yield from ((name, entry.kind) for name, entry in self.models.items() if _may_use(entry, caller))

    async def follow(self, list_models: Any, *, every_seconds: float, timeout_seconds: float) -> None:
        """Ask inference what it serves, for ever; what it said last stays known while it is away."""
        known = True
        while True:
            try:
                found: ListModelsResponse = await rpc.call(list_models, ListModelsRequest(), timeout=timeout_seconds)
                self.models = {entry.name: entry for entry in found.models if entry.name not in self.workflows and entry.name != AUTO}
                wait, known = every_seconds, True
            except ServiceError as error:
                if known:
                    log.warning("models_unknown", code=error.code)
                wait, known = min(every_seconds, 1.0), False
            await asyncio.sleep(wait)


def _may_use(entry: ModelEntry, caller: Caller) -> bool:
    return not entry.tenants or caller.tenant in entry.tenants
