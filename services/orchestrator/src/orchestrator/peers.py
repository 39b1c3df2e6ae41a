"""The services that steps call, each over its own channel."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from chassis.rpc import channel
from chassis.settings import ServiceSettings
from strata.guardrail.v1.guardrail_service_pb2_grpc import GuardrailServiceStub
from strata.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from strata.retriever.v1.retriever_service_pb2_grpc import RetrieverServiceStub
from strata.router.v1.router_service_pb2_grpc import RouterServiceStub
from strata.tool_sandbox.v1.tools_service_pb2_grpc import ToolsServiceStub


@dataclass(frozen=True)
class Peers:
    """Stubs of all peers; the generated async stubs are typed for synchronous use, hence Any."""

    guardrail: Any
    router: Any
    retriever: Any
    inference: Any
    tools: Any


@asynccontextmanager
async def connect(settings: ServiceSettings) -> AsyncIterator[Peers]:
    """Open a channel to every peer until the block ends; nothing is called yet."""
    async with AsyncExitStack() as stack:
        channels = {
            name: await stack.enter_async_context(channel(settings, "orchestrator", name))
            for name in ("guardrail", "router", "retriever", "inference", "tool_sandbox")
        }
        yield Peers(
            guardrail=GuardrailServiceStub(channels["guardrail"]),
            router=RouterServiceStub(channels["router"]),
            retriever=RetrieverServiceStub(channels["retriever"]),
            inference=InferenceServiceStub(channels["inference"]),
            tools=ToolsServiceStub(channels["tool_sandbox"]),
        )
