"""The encoder and the guard that all tests of this package share."""

from pathlib import Path

import pytest

from encoders import Encoder
from encoders.guard import Guard


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """Load the shipped weights once."""
    return Encoder.load()


@pytest.fixture(scope="session")
def guard() -> Guard:
    """Load the shipped weights once."""
    return Guard.load(Path(__file__).parents[3] / "models" / "guard")
