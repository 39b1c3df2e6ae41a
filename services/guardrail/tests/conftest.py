"""The running service, loaded once, called with orchestrator's certificate."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from chassis import process
from chassis.rpc import channel
from guardrail.main import Checks, create_checks, start
from guardrail.settings import Settings
from strata.guardrail.v1.guardrail_service_pb2_grpc import GuardrailServiceStub
from testkit.nats import NatsServer

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def checks() -> Checks:
    """All checks with the repository's own weights and policies, and as much time as a loaded machine needs."""
    return create_checks(Settings(STRATA_HOME=ROOT, check_budget_ms=120_000))


@pytest_asyncio.fixture
async def stub(bus: NatsServer, checks: Checks) -> AsyncIterator[GuardrailServiceStub]:
    """The service over mutual TLS."""
    settings = Settings(STRATA_HOME=ROOT)
    async with process.running("guardrail", settings, partial(start, checks)), channel(settings, "orchestrator", "guardrail") as opened:
        yield GuardrailServiceStub(opened)
