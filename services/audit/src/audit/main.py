"""Composition of audit: one writer on the bus, one reader on gRPC."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from audit.access import AccessLog
from audit.eraser import Eraser
from audit.outdated import announcing
from audit.servicer import AuditServicer
from audit.settings import Settings
from audit.subscribers import Writer
from chassis import process
from chassis.policy_changes import described, record_change, rule
from chassis.rpc import rpc_server
from strata.audit.v1.audit_service_pb2_grpc import add_AuditServiceServicer_to_server


@asynccontextmanager
async def start(runtime: process.Runtime) -> AsyncIterator[None]:
    """Write and answer until the block ends."""
    settings = runtime.settings
    if not isinstance(settings, Settings):
        raise TypeError(settings)
    retention = {name: rule(days, shown=f"{days} days") for name, days in settings.retention_days.items()}
    await record_change(runtime.bus, "audit/retention", described(retention))
    writer = Writer(runtime.bus, settings)
    task = asyncio.create_task(writer.run())
    # Without its writer the process is of no use, and whoever supervises it starts a new one.
    task.add_done_callback(lambda _: runtime.bus.closed.set())
    runtime.health.checks["log"] = lambda: writer.writable and not task.done()
    access = AccessLog(runtime.bus)
    servicer = AuditServicer(writer, access, Eraser(runtime.bus, writer, access, open_seconds=settings.open_seconds))
    try:
        async with (
            announcing(runtime.bus, lambda: writer.ledger().view, drain_seconds=settings.drain_seconds),
            rpc_server(settings, "audit", lambda server: add_AuditServiceServicer_to_server(servicer, server)),
        ):
            yield
    finally:
        writer.stop()
        await task


def main() -> None:
    """Run audit until SIGTERM."""
    process.run("audit", Settings, start)
