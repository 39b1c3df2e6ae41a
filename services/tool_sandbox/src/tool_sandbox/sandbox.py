"""Decides whether a call may run, and runs it within its limits."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chassis.errors import InvalidArgumentError
from tool_sandbox.breaker import Breaker
from tool_sandbox.databases import Database, Effect, Outcome
from tool_sandbox.declarations import Tool
from tool_sandbox.failures import (
    ToolArgumentsError,
    ToolFailedError,
    ToolNotAllowedError,
    ToolRestingError,
    ToolTimeoutError,
    ToolUnknownError,
)


@dataclass(frozen=True)
class Call:
    """One call as somebody asks for it."""

    tenant: str
    role: str
    domain: str
    tool: str
    arguments: dict[str, Any]
    call_id: str


class Sandbox:
    """The declared tools with their databases and breakers."""

    def __init__(self, tools: Mapping[tuple[str, str], Tool], databases: Mapping[str, Database], *, failures: int, reset: float) -> None:
        self._tools, self._databases = tools, databases
        self._breakers = {key: Breaker(failures, reset) for key in tools}

    @property
    def names(self) -> list[str]:
        """Every declared tool as `domain.name`."""
        return sorted(".".join(key) for key in self._tools)

    def visible(self, role: str, domain: str) -> list[Tool]:
        """Return the tools that a role may use, of one domain or of all when `domain` is empty."""
        return [tool for tool in self._tools.values() if role in tool.roles and domain in {"", tool.domain}]

    def admit(self, call: Call) -> Tool:
        """Return the tool of a call; raise an error with its stable code when the call is refused."""
        tool = self._tools.get((call.domain, call.tool))
        if tool is None:
            known = sorted(name for domain, name in self._tools if domain == call.domain)
            raise ToolUnknownError(f"unknown tool {call.tool!r} in domain {call.domain!r}; known: {known}")
        if call.role not in tool.roles:
            raise ToolNotAllowedError(f"role {call.role!r} may not use tool {tool.name!r}")
        if problem := tool.problem(call.arguments):
            raise ToolArgumentsError(f"arguments of tool {tool.name!r}: {problem}")
        if not call.call_id:
            raise InvalidArgumentError("a call needs a call_id")
        return tool

    async def run(self, call: Call, tool: Tool, *, seconds: float) -> Outcome:
        """Run an admitted call within the tool's own limit and `seconds`."""
        breaker = self._breakers[tool.domain, tool.name]
        if wait := breaker.wait_seconds():
            raise ToolRestingError(f"tool {tool.name!r} failed repeatedly and is tried again in {wait:.0f} s")
        budget = min(tool.timeout_seconds, seconds)
        effect = Effect(call.tenant, call.call_id)
        try:
            outcome = await asyncio.to_thread(self._databases[tool.domain].run, tool, call.arguments, effect=effect, seconds=budget)
        except (ToolFailedError, ToolTimeoutError):
            breaker.failed()
            raise
        breaker.succeeded()
        return outcome
