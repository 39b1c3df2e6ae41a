"""An encoder that is loaded while everything else goes on."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chassis.errors import FailedPreconditionError
from ingestor.encoders_in_use import Awaited
from knowledge.generations import Generation


def test_whoever_wants_vectors_waits_and_is_told(tmp_path: Path) -> None:
    """Nothing is loaded before it is said so; then it is once, and its failure is told to all who wait."""
    awaited = Awaited(Generation("enc", str(tmp_path)), threads=1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(awaited.encode, ["lamp"])
        with pytest.raises(TimeoutError):
            waiting.result(0.1)
        assert awaited.begin() is awaited.begin()
        with pytest.raises(FailedPreconditionError) as caught:
            waiting.result(180)
    assert caught.value.code == "encoder_unavailable"
