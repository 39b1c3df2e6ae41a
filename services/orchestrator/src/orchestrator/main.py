"""The composition root: what is declared, the peers, and the loops that read requests."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from chassis.erasing import erasing
from chassis.logging import get_logger
from chassis.policy_changes import record_change, settings_described
from chassis.process import Runtime, run
from chassis.settings import load as load_settings
from chassis.stops import following
from contracts.streams import ORCHESTRATOR_ERASURES
from orchestrator import catalogue, peers
from orchestrator.answer_cache import AnswerCache
from orchestrator.catalogue import Catalogue
from orchestrator.conductor import Conductor
from orchestrator.decisions import deciding
from orchestrator.engine import Engine
from orchestrator.erasing import Forgetting
from orchestrator.recording import Recorder
from orchestrator.records import RunStore
from orchestrator.runs import Tools
from orchestrator.settings import Settings
from orchestrator.steps import STEP_KINDS
from orchestrator.subscribers import forgetting, reading
from orchestrator.workflows import WorkflowError

NAME = "orchestrator"
# Of the settings, those that say what a prompt may hold.
POLICY_SETTINGS = ("passage_drops", "passage_drop_scores", "passage_signals", "passages_unchecked")
log = get_logger(NAME)


@asynccontextmanager
async def start(declared: Catalogue, settings: Settings, runtime: Runtime) -> AsyncIterator[None]:
    """Run requests for as long as the block lasts."""
    log.info("workflows_declared", workflows={name: workflow.sha256[:12] for name, workflow in declared.workflows.items()})
    await record_change(runtime.bus, "orchestrator/settings", settings_described(settings, POLICY_SETTINGS))
    async with peers.connect(settings) as connected, following(runtime) as stops:
        store = RunStore(runtime.bus, limit_bytes=settings.record_limit_bytes)
        tools = Tools(settings, declared, store, Recorder(runtime.bus), connected, AnswerCache(runtime.bus))
        conductor = Conductor(runtime.bus, tools, Engine(STEP_KINDS, attempts=settings.step_attempts), stops)
        async with (
            deciding(runtime.bus, connected, settings),
            reading(runtime.bus, conductor, settings, runtime.health),
            forgetting(runtime.bus, tools.cache, settings),
            erasing(
                runtime.bus,
                ORCHESTRATOR_ERASURES,
                Forgetting(runtime.bus, store, tools.cache).forget,
                drain_seconds=settings.drain_seconds,
            ),
        ):
            yield


def main() -> None:
    """Be the orchestrator until SIGTERM; a workflow that cannot be kept ends with one readable line."""
    settings = load_settings(Settings)
    try:
        declared = catalogue.load(settings.repository_dir)
    except WorkflowError as error:
        sys.exit(f"{NAME}: {error}")
    run(NAME, Settings, partial(start, declared, settings))
