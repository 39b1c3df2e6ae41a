"""One stack with the real model for all tests from outside."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.nats import free_port_offset

sys.path.insert(0, str(Path(__file__).parent))
from stack import Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Start everything on free ports; deadlines are stretched because the test machine has two cores for all of it."""
    running = Stack(
        tmp_path_factory.mktemp("strata") / "state",
        free_port_offset(),
        {
            "STRATA_DEADLINE_FACTOR": os.environ.get("STRATA_TEST_DEADLINE_FACTOR", "12"),
            "STRATA_GATEWAY_MAX_WAIT_SECONDS": "180",
        },
    )
    running.up()
    try:
        yield running
    finally:
        running.down()
