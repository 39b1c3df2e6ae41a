"""The writer dies at any point; nothing that it acknowledged is missing, and nothing is there twice."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from audit import leaves
from audit.segments import lines
from audit.verification import verify

CRASHES = 50


def test_fifty_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    """Half of the kills come at a random moment, half at a chosen call to the disk or in the middle of a write."""
    command = [sys.executable, str(Path(__file__).with_name("crashing.py")), str(tmp_path), str(CRASHES), "7"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)

    assert ended.returncode == 0, ended.stderr[-2000:]
    acknowledged = json.loads(ended.stdout.splitlines()[-1])["acknowledged"]
    found = verify(tmp_path / "audit")
    assert found.intact, found.problem
    counts = Counter(leaves.decode(line.leaf).header["stream_sequence"] for line in lines(tmp_path / "audit"))
    assert acknowledged > CRASHES
    assert set(counts) >= set(range(1, acknowledged + 1))
    assert max(counts.values()) == 1
