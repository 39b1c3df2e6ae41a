"""One service as a process: it starts, becomes ready, drains when asked, and leaves when the bus is gone for good."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import uvloop

from chassis import logging, telemetry
from chassis.health import Health, health_server
from chassis.messaging import Bus, connect
from chassis.settings import ServiceSettings, load

log = logging.get_logger("process")


@dataclass
class Runtime:
    """What a running service stands on."""

    name: str
    settings: ServiceSettings
    bus: Bus
    health: Health


Start = Callable[[Runtime], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def running(name: str, settings: ServiceSettings, start: Start, *, serve_health: bool = True) -> AsyncIterator[Runtime]:
    """Run the service inside the block; it is ready when the block begins and drained when it ends."""
    health = Health(name)
    bus = await connect(settings, name)
    health.checks["bus"] = lambda: bus.client.is_connected
    runtime = Runtime(name, settings, bus, health)
    port = settings.http_port(name)
    try:
        async with _maybe(health_server(health, settings.bind_host, port), use=serve_health), start(runtime):
            health.started = True
            log.info("service_ready", port=port)
            try:
                yield runtime
            finally:
                health.draining = True
                log.info("service_draining")
    finally:
        await bus.drain()


@asynccontextmanager
async def _maybe(manager: AbstractAsyncContextManager[None], *, use: bool) -> AsyncIterator[None]:
    if use:
        async with manager:
            yield
    else:
        yield


async def _until_stopped(name: str, settings: ServiceSettings, start: Start, *, serve_health: bool) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(name, settings, start, serve_health=serve_health) as runtime:
        waits = [asyncio.create_task(stop.wait()), asyncio.create_task(runtime.bus.closed.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in waits:
            task.cancel()
        return 0 if stop.is_set() else 1


def run(name: str, settings_type: type[ServiceSettings], start: Start, *, serve_health: bool = True) -> None:
    """Be the service `name` until SIGTERM; a wrong setting or a failed start ends with one readable line."""
    settings = load(settings_type)
    logging.configure(name, settings.log_level)
    telemetry.configure(name)
    try:
        code = uvloop.run(_until_stopped(name, settings, start, serve_health=serve_health))
    except OSError as error:
        log.exception("start_failed")
        sys.exit(f"{name}: {error}")
    sys.exit(code)
