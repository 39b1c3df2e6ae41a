"""What is attacked: a running stack, with keys of several roles and the certificates of the command."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from chassis.settings import ServiceSettings


@dataclass
class Target:
    """A running stack; `keys` are API keys by name, of roles and tenants that the probes need."""

    url: str
    state_dir: Path
    repository: Path
    settings: ServiceSettings
    nats_url: str
    keys: dict[str, str]
    http: httpx.AsyncClient
    # What one probe learned and another needs.
    notes: dict[str, Any] = field(default_factory=dict)

    async def call(self, method: str, path: str, *, key: str = "app", authorization: str | None = None, **options: Any) -> httpx.Response:
        """Send one request with the key named `key`, or with any authorization."""
        headers = {"authorization": authorization or f"Bearer {self.keys[key]}", **options.pop("headers", {})}
        return await self.http.request(method, self.url + path, headers=headers, **options)


@asynccontextmanager
async def connected(
    url: str, state_dir: Path, repository: Path, settings: ServiceSettings, nats_url: str, keys: dict[str, str]
) -> AsyncIterator[Target]:
    """Open the target for as long as the block lasts."""
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=8)) as http:
        yield Target(url, state_dir, repository, settings, nats_url, keys, http)
