"""The composition root: loads the declared collections, then takes documents in."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

from chassis.logging import get_logger
from chassis.process import Runtime, run
from chassis.rpc import rpc_server
from encoders import Encoder
from ingestor import catalogue
from ingestor.announcing import Announcer
from ingestor.catalogue import Collection
from ingestor.ledger import Ledger
from ingestor.library import Library
from ingestor.loading import Loader
from ingestor.parsing.isolated import DocumentParser
from ingestor.reviews import ReviewWatch
from ingestor.servicer import KnowledgeServicer
from ingestor.settings import Settings
from ingestor.uploads import Uploads
from knowledge import backends
from knowledge.index import Index
from strata.ingestor.v1.knowledge_service_pb2_grpc import add_KnowledgeServiceServicer_to_server

NAME = "ingestor"
log = get_logger(NAME)


async def _load(collections: Mapping[str, Collection], index: Index, loader: Loader, announcer: Announcer) -> None:
    """Load every folder; a document that is wrong is recorded and left out, the others are loaded."""
    holdings = await asyncio.to_thread(index.holdings)
    for collection in collections.values():
        result = await asyncio.to_thread(partial(loader.load, collection, indexed=collection.name in holdings))
        for refusal in result.refusals:
            log.error("document_refused", collection=refusal.collection, document=refusal.document_id, error=str(refusal.error))
            await announcer.refused(refusal.collection, refusal.document_id, str(refusal.error), refusal.error.code)
        await announcer.flush()


@asynccontextmanager
async def start(runtime: Runtime) -> AsyncIterator[None]:
    """Load what changed, then serve for as long as the block lasts."""
    settings = runtime.settings
    assert isinstance(settings, Settings)  # noqa: S101 - narrows the type of our own settings
    collections = catalogue.load(settings.domains_dir)
    encoder = await asyncio.to_thread(partial(Encoder.load, threads=settings.encoder_threads))
    key = encoder.identity.key()
    index = await asyncio.to_thread(backends.create, settings.knowledge, settings.state_dir, NAME, key)
    ledger = Ledger(settings.index_dir / f"ledger_{key}.db")
    library = Library(index, encoder, ledger, longest_text_bytes=settings.longest_text_bytes)
    announcer = Announcer(runtime.bus, ledger, library, flush_seconds=settings.flush_seconds)
    await asyncio.to_thread(library.recover)
    parser = DocumentParser(settings.parse_limits, timeout_seconds=settings.parse_seconds)
    await _load(collections, index, Loader(library, ledger, batch_documents=settings.batch_documents, parser=parser), announcer)
    await asyncio.to_thread(library.tidy)
    reviews = ReviewWatch(runtime.bus, collections, index, settings.state_dir / "ingestor" / "reviews.json")
    background = [asyncio.create_task(announcer.run()), asyncio.create_task(reviews.run())]
    uploads = Uploads(collections, library, announcer, parser, at_once=settings.uploads_at_once)
    servicer = KnowledgeServicer(collections, library, index, announcer, uploads)
    try:
        async with rpc_server(settings, NAME, partial(add_KnowledgeServiceServicer_to_server, servicer)):
            yield
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        parser.close()
        ledger.close()


def main() -> None:
    """Be ingestor until SIGTERM."""
    run(NAME, Settings, start)
