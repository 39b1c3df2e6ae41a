"""The service in front of servers that tests control."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from chassis import rpc
from chassis.process import running
from inference.main import start
from inference.settings import Settings
from strata.gateway.v1.gateway_events_pb2 import Caller, ChatMessage
from strata.inference.v1.inference_service_pb2 import Generated, GenerateRequest
from strata.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from testkit.nats import NatsServer
from testkit.vllm import repository

TIERS = ("small", "mid", "large", "reasoning")


def deployment(url: str, **fields: Any) -> dict[str, Any]:
    """Return a deployment of the configuration file."""
    return {"kind": "openai", "url": url, "base_model": "base", "max_model_len": 2048, **fields}


def configuration(deployments: dict[str, Any], tier: Any, adapters: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a configuration in which every tier goes to the same place."""
    return {"deployments": deployments, "tiers": dict.fromkeys(TIERS, tier), "adapters": adapters or {}}


def ask(text: str = "Hello", **fields: Any) -> GenerateRequest:
    """Return a request of tenant acme."""
    fields = {"tier": "small", "messages": [ChatMessage(role="user", content=text)], "caller": Caller(tenant="acme"), **fields}
    return GenerateRequest(**fields)


async def generate(stub: Any, request: GenerateRequest, seconds: float = 180) -> tuple[list[str], Generated]:
    """Return the pieces and the summary."""
    pieces, done = [], Generated()
    async for response in rpc.stream(stub.Generate, request, timeout=seconds):
        if response.WhichOneof("part") == "delta":
            pieces.append(response.delta)
        else:
            done = response.done
    return pieces, done


Serve = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
def serve(bus: NatsServer, tmp_path: Path) -> Serve:
    """Runs the service on a configuration; yields a stub that calls it as the orchestrator."""

    @asynccontextmanager
    async def _serve(content: dict[str, Any], **settings: Any) -> AsyncIterator[Any]:
        path = tmp_path / "models.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        chosen = Settings(config_file=path, STRATA_HOME=repository(), probe_seconds=0.1, **settings)
        async with running("inference", chosen, start), rpc.channel(chosen, "orchestrator", "inference") as channel:
            yield InferenceServiceStub(channel)

    return _serve
