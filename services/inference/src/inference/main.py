"""Composition of inference: the configuration, the prompts, the engines, and gRPC in front of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from chassis import process
from chassis.rpc import rpc_server
from chassis.stops import following
from contracts.identities import VLLM_PORT
from inference import configuration, deployments, prompts
from inference.generation import ModelGateway
from inference.providers.streaming import Timeouts
from inference.servicer import InferenceServicer
from inference.settings import Settings
from strata.inference.v1.inference_service_pb2_grpc import add_InferenceServiceServicer_to_server


@asynccontextmanager
async def start(runtime: process.Runtime) -> AsyncIterator[None]:
    """Answer until the block ends; ready while every tier has an engine that answers."""
    settings = runtime.settings
    if not isinstance(settings, Settings):
        raise TypeError(settings)
    models = configuration.load(settings.models_file)
    known_prompts = prompts.load(settings.repository_dir / "domains")
    timeouts = Timeouts(
        settings.connect_timeout_seconds,
        settings.first_token_timeout_seconds,
        settings.next_token_timeout_seconds,
        settings.total_timeout_seconds,
    )
    served = deployments.connect(models, port=VLLM_PORT + settings.port_offset, state_dir=settings.state_dir, timeouts=timeouts)
    runtime.health.checks["engines"] = lambda: all(
        any(served[name].ready for name in (tier.deployment, *tier.fallbacks)) for tier in models.tiers.values()
    )
    async with following(runtime) as stops, deployments.watched(served, settings.probe_seconds):
        servicer = InferenceServicer(
            ModelGateway(models, served),
            known_prompts,
            stops,
            repository_dir=settings.repository_dir,
            default_max_tokens=settings.default_max_tokens,
            max_prompt_characters=settings.max_prompt_characters,
        )
        add = partial(add_InferenceServiceServicer_to_server, servicer)
        async with rpc_server(settings, "inference", add, max_concurrent=1024):
            yield


def main() -> None:
    """Run inference until SIGTERM."""
    process.run("inference", Settings, start)
