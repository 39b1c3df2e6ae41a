"""gRPC in: text from models, by internal names."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

from chassis.errors import InvalidArgumentError
from chassis.rpc import Context
from chassis.stops import Stops
from inference import catalogue, wire
from inference.generation import ModelGateway, Result
from inference.prompts import Prompts
from strata.inference.v1.inference_service_pb2 import (
    GenerateRequest,
    GenerateResponse,
    ListModelsRequest,
    ListModelsResponse,
)
from strata.inference.v1.inference_service_pb2_grpc import InferenceServiceServicer


class InferenceServicer(InferenceServiceServicer):
    """Translates; `gateway` decides."""

    def __init__(
        self,
        gateway: ModelGateway,
        prompts: Prompts,
        stops: Stops,
        *,
        repository_dir: Path,
        default_max_tokens: int,
        max_prompt_characters: int,
    ) -> None:
        self._gateway, self._prompts, self._stops, self._repository_dir = gateway, prompts, stops, repository_dir
        self._default_max_tokens, self._max_characters = default_max_tokens, max_prompt_characters

    async def Generate(self, request: GenerateRequest, context: Context) -> AsyncIterator[GenerateResponse]:  # noqa: N802, ARG002 - grpc's names
        """Stream the text as it is made, then the summary; a caller that leaves stops the engine."""
        if not (request.tier or request.adapter):
            raise InvalidArgumentError("give a tier or an adapter")
        stoppable = {"tenant": request.caller.tenant, "adapter": request.adapter}
        self._stops.check(**stoppable)
        candidates = self._gateway.resolve(tier=request.tier, adapter=request.adapter, tenant=request.caller.tenant)
        candidates = self._gateway.permitted(candidates, request.clearance if request.HasField("clearance") else None)
        # In a thread: the schema of a stranger takes its time to read.
        job, prompt = await asyncio.to_thread(
            wire.to_job, request, self._prompts, default_max_tokens=self._default_max_tokens, max_characters=self._max_characters
        )
        result = Result()
        async with aclosing(self._gateway.generate(candidates, job, result)) as pieces:
            async for piece in pieces:
                self._stops.check(**stoppable)
                yield GenerateResponse(delta=piece)
        yield GenerateResponse(done=wire.to_generated(result, prompt, prefix=request.prefix))

    async def ListModels(self, request: ListModelsRequest, context: Context) -> ListModelsResponse:  # noqa: N802, ARG002 - grpc's names
        """Name what can be asked for, and whether it can be had now."""
        return catalogue.list_models(self._gateway, self._prompts, self._repository_dir)
