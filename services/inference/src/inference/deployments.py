"""The engines as they are now: how busy, how healthy, and what they serve."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from chassis.errors import ResourceExhaustedError, ServiceError
from chassis.logging import get_logger
from chassis.tasks import end
from encoders import Encoder
from inference import signals
from inference.configuration import Deployment, Models
from inference.providers import create
from inference.providers.base import Provider
from inference.providers.streaming import ChatClient, Timeouts
from inference.tool_selection import ToolSelector

log = get_logger("deployments")


class Served:
    """One deployment with its provider, its places, and what the last look at it found."""

    def __init__(self, name: str, spec: Deployment, provider: Provider) -> None:
        self.name, self.spec, self.provider = name, spec, provider
        self.models: frozenset[str] = frozenset()
        self.ready = False
        self._places = asyncio.Semaphore(spec.max_concurrency)
        self._waiting = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold one of the places at the engine; raise ResourceExhaustedError when too many wait already."""
        if self._places.locked() and self._waiting >= self.spec.max_queue:
            raise ResourceExhaustedError(f"{self._waiting} generations wait for deployment {self.name!r} already", code="engine_overloaded")
        self._waiting += 1
        signals.WAITING.labels(deployment=self.name).set(self._waiting)
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
            signals.WAITING.labels(deployment=self.name).set(self._waiting)
        running = signals.RUNNING.labels(deployment=self.name)
        running.inc()
        try:
            yield
        finally:
            running.dec()
            self._places.release()

    async def look(self) -> None:
        """Ask the engine what it serves now."""
        try:
            models = await self.provider.list_models()
        except ServiceError as error:
            if self.ready:
                log.warning("deployment_lost", deployment=self.name, error=str(error))
            self.ready, self.models = False, frozenset()
        else:
            if not self.ready or models != self.models:
                log.info("deployment_ready", deployment=self.name, models=sorted(models)[:50])
            self.ready, self.models = True, models
        signals.READY.labels(deployment=self.name).set(self.ready)

    def serves(self, model: str) -> bool:
        """Return whether the engine answers and offers this model."""
        return self.ready and model in self.models


def connect(models: Models, *, port: int, state_dir: Path, timeouts: Timeouts) -> dict[str, Served]:
    """Return every deployment of the file; raise ConfigurationError for a key that cannot be read."""
    result = {}
    # The encoder takes a second and some memory: only where a deployment wants it.
    encoder = Encoder.load() if any(spec.tool_relevance is not None for spec in models.deployments.values()) else None
    for name, spec in models.deployments.items():
        client = ChatClient(spec.endpoint(port), spec.api_key(state_dir), timeouts, connections=spec.max_concurrency)
        decides = (spec.tools or ("native" if spec.kind == "openai" else "constrained")) == "native"
        selector = None if encoder is None or spec.tool_relevance is None else ToolSelector(encoder, spec.tool_relevance)
        result[name] = Served(name, spec, create(client, decides_tools=decides, kind=spec.kind, selector=selector))
    return result


async def watch(deployments: Mapping[str, Served], pause_seconds: float) -> None:
    """Look at every engine again and again."""
    while True:
        await asyncio.gather(*(served.look() for served in deployments.values()))
        await asyncio.sleep(pause_seconds)


@asynccontextmanager
async def watched(deployments: Mapping[str, Served], pause_seconds: float) -> AsyncIterator[None]:
    """Keep looking inside the block; close all connections after it."""
    task = asyncio.create_task(watch(deployments, pause_seconds))
    try:
        yield
    finally:
        await end(task)
        for served in deployments.values():
            await served.provider.close()
