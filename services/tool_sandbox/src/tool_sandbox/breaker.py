"""Leaves a tool alone for a while after it failed several times in a row."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Breaker:
    """Counts failures in a row; when open, one call at a time may try again after a pause."""

    failures: int
    reset_seconds: float
    clock: Callable[[], float] = time.monotonic
    _in_a_row: int = field(default=0, init=False)
    _closed_from: float = field(default=0.0, init=False)

    def wait_seconds(self) -> float:
        """Return how long calls must wait; zero lets this call through, as the one that tries if the tool was failing."""
        if self._in_a_row < self.failures:
            return 0.0
        remaining = self._closed_from - self.clock()
        if remaining <= 0:
            self._closed_from = self.clock() + self.reset_seconds
            return 0.0
        return remaining

    def succeeded(self) -> None:
        """Note that the tool works."""
        self._in_a_row = 0

    def failed(self) -> None:
        """Note that the tool broke or was too slow."""
        self._in_a_row += 1
        self._closed_from = self.clock() + self.reset_seconds
