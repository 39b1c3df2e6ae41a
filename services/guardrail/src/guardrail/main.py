"""The composition root: checks, rules, keys and the gRPC server of guardrail."""

import asyncio
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from chassis.clearing import deployments
from chassis.erasing import erasing
from chassis.logging import get_logger
from chassis.policy import load_policies
from chassis.process import Runtime, run
from chassis.rpc import rpc_server
from chassis.settings import load as load_settings
from chassis.stops import Stops, following
from contracts.streams import GUARDRAIL_ERASURES
from encoders import ClassifierFileError, EncoderUnavailableError
from encoders.grounding import SupportFileError
from encoders.guard import GuardFileError
from guardrail.canaries import Canaries
from guardrail.checks import Parts, input_checks, output_checks
from guardrail.checks.base import Answer, Check, Conversation, Piece, Source
from guardrail.clearance import Clearances
from guardrail.erasing import Forgetting
from guardrail.escalation import Rules
from guardrail.moderation import Moderator
from guardrail.panel import Panel
from guardrail.personal.sessions import Sessions
from guardrail.personal.vault import Vault
from guardrail.policy_changes import of_files, of_policies, of_process, record_changes
from guardrail.releasing import Releaser, Signer
from guardrail.screening import Screener
from guardrail.servicer import GuardrailServicer
from guardrail.settings import Settings
from strata.guardrail.v1.guardrail_service_pb2_grpc import add_GuardrailServiceServicer_to_server

NAME = "guardrail"
log = get_logger(NAME)


@dataclass(frozen=True)
class Checks:
    """Everything that is loaded before the process says that it starts."""

    input: tuple[Check[Conversation], ...]
    output: tuple[Check[Answer], ...]
    rules: Rules
    clearances: Clearances


def create_checks(settings: Settings) -> Checks:
    """Read policies and load models; raise what names the file that cannot be used."""
    policies = load_policies(settings.repository_dir / "domains")
    parts = Parts(settings)
    return Checks(
        input_checks(parts),
        output_checks(parts),
        Rules(policies, default_deadline_seconds=settings.default_deadline_seconds),
        Clearances.load(settings.repository_dir / "domains", deployments(settings.models_file).values()),
    )


@asynccontextmanager
async def start(checks: Checks, runtime: Runtime) -> AsyncIterator[None]:
    """Serve for as long as the block lasts."""
    async with following(runtime) as stops, _serving(checks, runtime, stops):
        yield


@asynccontextmanager
async def _serving(checks: Checks, runtime: Runtime, stops: Stops) -> AsyncIterator[None]:
    settings = runtime.settings
    assert isinstance(settings, Settings)  # noqa: S101 - `run` was given this type
    signer = Signer(settings.state_dir)
    vault = Vault.open_key(settings.state_dir / "credentials" / NAME / "vault.key")
    with ThreadPoolExecutor(settings.threads, thread_name_prefix="check") as pool:
        gate = Panel([c for c in checks.input if c.name == "size"], pool)
        screener = Screener(Panel([c for c in checks.input if c.name != "size"], pool), gate)
        releaser = Releaser(Panel(checks.output, pool))
        moderator = Moderator(Panel(checks.input, pool), Panel(checks.output, pool))
        domains = settings.repository_dir / "domains"
        running = of_process(settings, moderator.cards, deployments(settings.models_file).values())
        await record_changes(runtime.bus, {**of_policies(domains, checks.rules.policies), **of_files(domains), **running})
        sessions = Sessions(runtime.bus, vault.key, purpose=settings.session_purpose, retention_seconds=settings.session_retention_seconds)
        canaries = Canaries(vault.key, rotation_seconds=settings.canary_rotation_seconds)
        servicer = GuardrailServicer(
            screener, releaser, moderator, checks.rules, vault, sessions, checks.clearances, canaries, signer, runtime.bus, stops
        )
        await asyncio.gather(screener.screen(_WARM_INPUT), releaser.judge(_WARM_OUTPUT, (), may_read=False))
        async with (
            erasing(runtime.bus, GUARDRAIL_ERASURES, Forgetting(sessions).forget, drain_seconds=settings.drain_seconds),
            rpc_server(settings, NAME, partial(add_GuardrailServiceServicer_to_server, servicer)),
        ):
            log.info("checks_ready", input=[c.name for c in checks.input], output=[c.name for c in checks.output], key_id=signer.key_id)
            yield


# The first call of each model is slow; it is made here and not by the first client.
_WARM_INPUT = Conversation((Piece("user", "My name is Ada Moss, call me at 212-555-0100."),))
_WARM_OUTPUT = Answer("Rest and drink water [1].", sources=(Source("1", "Rest and drink water."),), require_grounding=True)


def main() -> None:
    """Be guardrail until SIGTERM; what cannot be loaded ends with one readable line."""
    try:
        checks = create_checks(load_settings(Settings))
    except (ClassifierFileError, EncoderUnavailableError, GuardFileError, SupportFileError, OSError) as error:
        sys.exit(f"{NAME}: {error}")
    run(NAME, Settings, partial(start, checks))
