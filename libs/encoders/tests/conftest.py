"""The one encoder that all tests of this package share."""

import pytest

from encoders import Encoder


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """Load the shipped weights once."""
    return Encoder.load()
