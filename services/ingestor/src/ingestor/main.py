"""The composition root: loads the declared collections, then takes documents in."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from chassis.logging import get_logger
from chassis.process import Runtime, run
from chassis.rpc import rpc_server
from chassis.tasks import end
from ingestor import catalogue
from ingestor.announcing import Announcer
from ingestor.catalogue import Collection
from ingestor.cdc import mapping
from ingestor.cdc.mapping import Table
from ingestor.deletions import Search, in_answers
from ingestor.encoders_in_use import Awaited, EncoderSwitch, expiring
from ingestor.feeding import Sources
from ingestor.late_vectors import complete
from ingestor.ledger import Ledger
from ingestor.library import Library
from ingestor.loading import Loader
from ingestor.operations import Operations
from ingestor.parsing.isolated import DocumentParser
from ingestor.reviews import ReviewWatch
from ingestor.servicer import KnowledgeServicer
from ingestor.settings import Settings
from ingestor.uploads import Uploads
from knowledge import backends
from knowledge.generations import Generation, Generations
from knowledge.index import Index
from knowledge.schema import Kind
from knowledge.switching import Switchable
from strata.ingestor.v1.knowledge_service_pb2_grpc import add_KnowledgeServiceServicer_to_server

NAME = "ingestor"
LEDGER, SOURCES = "ledger.db", "sources.db"
_FIRST_SECONDS = 2.0
# The thread that takes changes in waits this long, and not five times that, whenever another one has the interpreter.
_TURN_SECONDS = 0.001
_EXPIRY_SECONDS = 60.0
log = get_logger(NAME)


@dataclass(frozen=True)
class _Store:
    """The index with its one writer, and what tells of its changes."""

    generations: Generations
    create: Callable[[str], Index]
    encoder: Awaited
    pair: Switchable
    ledger: Ledger
    library: Library
    announcer: Announcer


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
    """Take change events in at once, load what changed in folders, then serve for as long as the block lasts."""
    settings = runtime.settings
    assert isinstance(settings, Settings)  # noqa: S101 - narrows the type of our own settings
    collections = catalogue.load(settings.domains_dir)
    tables = mapping.load(settings.domains_dir, collections)
    store = await _open_store(settings, runtime)
    parser = DocumentParser(settings.parse_limits, timeout_seconds=settings.parse_seconds)
    try:
        sources = _sources(tables, store, settings, runtime) if tables else None
        async with _background([sources.run()] if sources else [], runtime):
            if sources:
                # What changed while nobody read comes before the encoder, whose loading stops everything else now and then.
                await sources.begun(_FIRST_SECONDS)
            # Whoever cannot make vectors is not ready, and says why.
            await asyncio.wrap_future(store.encoder.begin())
            await _load_folders(collections, tables, store, parser, settings)
            async with _serving(collections, tables, store, sources, parser, runtime):
                yield
    finally:
        parser.close()
        store.ledger.close()


@asynccontextmanager
async def _serving(
    collections: Mapping[str, Collection],
    tables: Sequence[Table],
    store: _Store,
    sources: Sources | None,
    parser: DocumentParser,
    runtime: Runtime,
) -> AsyncIterator[None]:
    """Answer calls and tell of changes for as long as the block lasts."""
    settings = runtime.settings
    assert isinstance(settings, Settings)  # noqa: S101 - as above
    operations = _operations(collections, store, sources, settings, runtime)
    fed = _fed(tables)
    uploads = Uploads(collections, store.library, store.announcer, parser, at_once=settings.uploads_at_once, fed=fed)
    servicer = KnowledgeServicer(collections, store.library, store.pair, store.announcer, uploads, operations, fed=fed)
    reviews = ReviewWatch(runtime.bus, collections, store.pair, settings.state_dir / "ingestor" / "reviews.json")
    register = partial(add_KnowledgeServiceServicer_to_server, servicer)
    expiry = expiring(operations.encoders, _EXPIRY_SECONDS)
    async with _background([store.announcer.run(), reviews.run(), expiry], runtime), rpc_server(settings, NAME, register):
        yield


async def _open_store(settings: Settings, runtime: Runtime) -> _Store:
    """Open the index that is served, and settle what a crash interrupted."""
    generations, create = Generations(settings.index_dir), partial(backends.create, settings.knowledge, settings.state_dir, NAME)
    state = generations.read()
    encoder = Awaited(state.serving if state else Generation(""), threads=settings.encoder_threads)
    pair = await asyncio.to_thread(_open, generations, create, encoder)
    ledger = Ledger(settings.index_dir / LEDGER)
    library = Library(pair, pair, ledger, longest_text_bytes=settings.longest_text_bytes)
    announcer = Announcer(runtime.bus, ledger, library, flush_seconds=settings.flush_seconds)
    await asyncio.to_thread(library.recover)
    return _Store(generations, create, encoder, pair, ledger, library, announcer)


async def _load_folders(
    collections: Mapping[str, Collection], tables: Sequence[Table], store: _Store, parser: DocumentParser, settings: Settings
) -> None:
    """Load the folders of all collections that no table feeds."""
    fed = _fed(tables)
    folders = {name: collection for name, collection in collections.items() if name not in fed}
    loader = Loader(store.library, store.ledger, batch_documents=settings.batch_documents, parser=parser)
    await _load(folders, store.pair, loader, store.announcer)
    # What was stored just before the encoder was exchanged may still be without vectors; the change events' own lane sees to the rest.
    for kind in (Kind.ANCHORED,) if tables else Kind:
        await asyncio.to_thread(complete, store.library, kind)
    await asyncio.to_thread(store.library.tidy)


def _fed(tables: Sequence[Table]) -> frozenset[str]:
    return frozenset(table.collection.name for table in tables)


def _sources(tables: Sequence[Table], store: _Store, settings: Settings, runtime: Runtime) -> Sources:
    return Sources(tables, settings, settings.feed, runtime.bus, store.pair, store.library, settings.index_dir / SOURCES)


def _operations(
    collections: Mapping[str, Collection], store: _Store, sources: Sources | None, settings: Settings, runtime: Runtime
) -> Operations:
    tables = backends.tables(settings.knowledge, settings.state_dir, NAME)
    encoders = EncoderSwitch(
        store.pair, store.generations, store.create, store.library.writing, list(collections),
        threads=settings.encoder_threads, tables=tables, way_back_days=settings.way_back_days,
    )  # fmt: skip
    search = Search(store.pair, tables, encoders.kept_until, [settings.index_dir / LEDGER, settings.index_dir / SOURCES])
    return Operations(
        collections,
        store.pair,
        encoders,
        search.look,
        partial(in_answers, runtime.bus),
        backend=settings.knowledge.backend,
        feed=sources.feed if sources else None,
        replications=[source.status for source in sources.replications.values()] if sources else (),
    )


@asynccontextmanager
async def _background(runs: Sequence[Coroutine[Any, Any, None]], runtime: Runtime) -> AsyncIterator[None]:
    """Run what never ends by itself until the block ends."""
    tasks = [asyncio.create_task(run) for run in runs]
    for task in tasks:
        # A process that no longer takes changes in would look healthy for ever; whoever supervises it starts a new one.
        task.add_done_callback(lambda done: None if done.cancelled() else runtime.bus.closed.set())
    try:
        yield
    finally:
        await end(*tasks)


def _open(generations: Generations, create: Callable[[str], Index], encoder: Awaited) -> Switchable:
    """Open what is served, which needs no encoder, or begin with the one that is installed."""
    state = generations.read()
    key = state.serving.encoder if state else encoder.begin().result().identity.key()
    index = create(key)
    generations.begin(Generation(key))
    return Switchable(index, encoder)


def main() -> None:
    """Be ingestor until SIGTERM."""
    sys.setswitchinterval(_TURN_SECONDS)
    run(NAME, Settings, start)
