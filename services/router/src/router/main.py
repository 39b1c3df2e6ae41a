"""The composition root: encoder, classifiers, policies and the gRPC server of router."""

import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

from chassis.logging import get_logger
from chassis.process import Runtime, run
from chassis.rpc import rpc_server
from chassis.settings import load as load_settings
from encoders import ClassifierFileError, Encoder, EncoderUnavailableError
from router.domains import load_domains, load_head
from router.routing import Router
from router.servicer import RouterServicer
from router.settings import REQUEST_CLASSES, Settings
from strata.router.v1.router_service_pb2_grpc import add_RouterServiceServicer_to_server

NAME = "router"
log = get_logger(NAME)


def create_router(settings: Settings) -> Router:
    """Read weights and policies; raise what names the file that cannot be used."""
    repository = settings.repository_dir
    encoder = Encoder.load()
    classes = load_head(repository, settings.request_class_model, encoder)
    if unknown := set(classes.classifier.config.labels) - set(REQUEST_CLASSES):
        raise ClassifierFileError(f"{settings.request_class_model!r} answers unknown request classes {sorted(unknown)}")
    domains = load_domains(repository, encoder)
    log.info("domains_read", domains=sorted(domains))
    return Router(
        encoder,
        classes,
        domains,
        tiers=settings.tiers,
        simple_intents=settings.simple_intents,
        max_characters=settings.max_characters,
    )


@asynccontextmanager
async def start(router: Router, runtime: Runtime) -> AsyncIterator[None]:
    """Serve for as long as the block lasts."""
    settings = runtime.settings
    threads = settings.threads if isinstance(settings, Settings) else 1
    with ThreadPoolExecutor(threads, thread_name_prefix="classify") as pool:
        router.classify("What are your opening hours?", None)
        register = partial(add_RouterServiceServicer_to_server, RouterServicer(router, pool))
        async with rpc_server(settings, NAME, register):
            yield


def main() -> None:
    """Be router until SIGTERM; what cannot be loaded ends with one readable line."""
    try:
        router = create_router(load_settings(Settings))
    except (ClassifierFileError, EncoderUnavailableError, OSError) as error:
        sys.exit(f"{NAME}: {error}")
    run(NAME, Settings, partial(start, router))
