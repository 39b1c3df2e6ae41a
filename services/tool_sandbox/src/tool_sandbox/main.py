"""The composition root: declarations, databases and the gRPC server of tool_sandbox."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from chassis.logging import get_logger
from chassis.process import Runtime, run
from chassis.rpc import rpc_server
from chassis.settings import load as load_settings
from chassis.stops import following
from strata.tool_sandbox.v1.tools_service_pb2_grpc import add_ToolsServiceServicer_to_server
from tool_sandbox.attempts import Attempts
from tool_sandbox.databases import Database, build
from tool_sandbox.declarations import DeclarationError, load
from tool_sandbox.sandbox import Sandbox
from tool_sandbox.servicer import ToolsServicer
from tool_sandbox.settings import Settings

NAME = "tool_sandbox"
log = get_logger(NAME)


def create_sandbox(settings: Settings) -> Sandbox:
    """Read all declarations and build what is missing; raise DeclarationError for what cannot be kept."""
    domains = settings.repository_dir / "domains"
    tools = load(domains)
    databases = {domain: _database(domains, domain, settings.state_dir) for domain in sorted({tool.domain for tool in tools.values()})}
    for tool in tools.values():
        databases[tool.domain].prepare(tool)
    return Sandbox(tools, databases, failures=settings.breaker_failures, reset=settings.breaker_reset_seconds)


def _database(domains: Path, domain: str, state_dir: Path) -> Database:
    path = state_dir / NAME / f"{domain}.db"
    build(domains / domain / "tables.sql", path)
    return Database(path)


@asynccontextmanager
async def start(sandbox: Sandbox, runtime: Runtime) -> AsyncIterator[None]:
    """Serve the sandbox for as long as the block lasts."""
    log.info("tools_declared", tools=sandbox.names)
    async with following(runtime) as stops:
        servicer = ToolsServicer(sandbox, runtime.bus, stops, Attempts(runtime.settings.state_dir / NAME / "attempts"))
        await servicer.resolve()
        async with rpc_server(runtime.settings, NAME, partial(add_ToolsServiceServicer_to_server, servicer)):
            yield


def main() -> None:
    """Be tool_sandbox until SIGTERM; a bad declaration ends with one readable line."""
    try:
        sandbox = create_sandbox(load_settings(Settings))
    except DeclarationError as error:
        sys.exit(f"{NAME}: {error}")
    run(NAME, Settings, partial(start, sandbox))
