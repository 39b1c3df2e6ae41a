"""Servers as child processes."""

import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from chassis.child_servers import free_port, running
from chassis.errors import UnavailableError


def test_a_server_runs_while_it_is_needed(tmp_path: Path) -> None:
    """It answers within the block and no longer after it."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    with running(command, {}, ready_url=url, log=tmp_path / "log", start_seconds=120), urllib.request.urlopen(url) as answer:
        assert answer.status == 200
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url)


def test_one_that_ends_says_why(tmp_path: Path) -> None:
    """What it wrote last is in the error, and what was added to its environment reached it."""
    command = [sys.executable, "-c", "import os, sys; sys.exit(os.environ['REASON'])"]
    with (
        pytest.raises(UnavailableError, match="no such model"),
        running(command, {"REASON": "no such model"}, ready_url="http://127.0.0.1:9/", log=tmp_path / "log", start_seconds=120),
    ):
        pass
