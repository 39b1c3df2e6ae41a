"""The composition root: encoder, index and the gRPC server of retriever."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

from chassis.process import Runtime, run
from chassis.rpc import rpc_server
from chassis.tasks import end
from encoders import Encoder
from retriever.declared import load
from retriever.servicer import RetrieverServicer
from retriever.settings import Settings
from retriever.shelf import Shelf
from retriever.staleness import Answered
from retriever.subscribers import following
from retriever.watermarks import Watermarks
from strata.retriever.v1.retriever_service_pb2_grpc import add_RetrieverServiceServicer_to_server

NAME = "retriever"


@asynccontextmanager
async def start(runtime: Runtime) -> AsyncIterator[None]:
    """Serve for as long as the block lasts; ready once ingestor has made the index."""
    settings = runtime.settings
    assert isinstance(settings, Settings)  # noqa: S101 - narrows the type of our own settings
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(settings.threads, "search"))
    ranking = settings.ranking.model_copy(update={"collections": load(settings.repository_dir / "domains") | settings.ranking.collections})
    encoder = await asyncio.to_thread(partial(Encoder.load, threads=settings.encoder_threads))
    shelf = Shelf(settings.knowledge, settings.state_dir, encoder, threads=settings.encoder_threads)
    runtime.health.checks["index"] = lambda: shelf.ready
    watching = asyncio.create_task(shelf.watch(settings.poll_seconds))
    watermarks, answered = Watermarks(), Answered()
    servicer = RetrieverServicer(shelf, settings.model_copy(update={"ranking": ranking}), watermarks, answered)
    try:
        async with (
            following(settings, runtime.bus, shelf, watermarks, answered),
            rpc_server(settings, NAME, partial(add_RetrieverServiceServicer_to_server, servicer)),
        ):
            yield
    finally:
        await end(watching)


def main() -> None:
    """Be retriever until SIGTERM."""
    run(NAME, Settings, start)
