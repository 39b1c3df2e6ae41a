"""`strata knowledge put`, `withdraw` and `due` against a running ingestor."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import pytest_asyncio
import yaml
from typer.testing import CliRunner

from cli.main import app
from contracts.identities import BY_NAME
from testkit.nats import NatsServer


@pytest_asyncio.fixture
async def ingestor(bus: NatsServer, tmp_path: Path) -> AsyncIterator[Path]:
    """Run ingestor with one anchored collection, and say where it runs as `strata up` does; return the state folder."""
    folder = tmp_path / "home" / "domains" / "desk"
    (folder / "documents").mkdir(parents=True)
    entry = {"name": "rules", "kind": "anchored", "path": "documents", "owner": "desk", "review_date": "2020-01-01", "licence": "MIT"}
    (folder / "domain.yaml").write_text(yaml.safe_dump({"name": "desk", "collections": [entry]}))
    run = bus.state_dir / "run"
    run.mkdir(exist_ok=True)
    stack = {"supervisor": os.getpid(), "port_offset": bus.port_offset, "ready": True, "processes": []}
    (run / "stack.json").write_text(json.dumps(stack))
    environment = {**os.environ, "STRATA_HOME": str(tmp_path / "home")}
    with (tmp_path / "ingestor.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "ingestor", env=environment, stdout=log, stderr=log)
    async with httpx.AsyncClient() as http:
        for _ in range(3000):
            assert process.returncode is None, (tmp_path / "ingestor.log").read_text()[-2000:]
            try:
                answer = await http.get(f"http://127.0.0.1:{BY_NAME['ingestor'].http_port + bus.port_offset}/readyz")
                if answer.status_code == 200:
                    break
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
    yield bus.state_dir
    process.terminate()
    await process.wait()


async def _strata(state: Path, *arguments: str) -> tuple[int, str, str]:
    # In this process: a start of the command takes longer than what is asked.
    with patch.dict(os.environ):
        result = await asyncio.to_thread(CliRunner().invoke, app, ["knowledge", *arguments, "--state", str(state)])
    return result.exit_code, result.stdout, result.stderr


async def test_put_withdraw_and_due(ingestor: Path, tmp_path: Path) -> None:
    """A file becomes a version, a bad one is one line with its code, a withdrawal needs a reason, and what is due is listed."""
    page, broken = tmp_path / "refunds.md", tmp_path / "broken.pdf"
    page.write_text("---\nreview_date: 2021-01-01\n---\n# Refunds\n\nFive days.")
    broken.write_bytes(b"%PDF-1.7 broken")
    arguments = ["put", "rules", str(page), "--effective-from", "2024-01-01", "--metadata", "region=eu", "--label", "public"]
    code, out, _ = await _strata(ingestor, *arguments, "--json")
    stored: dict[str, Any] = json.loads(out)
    refused, undated, nowhere, due, no_reason, gone, again = [
        await _strata(ingestor, *command)
        for command in (
            ["put", "rules", str(broken), "--effective-from", "2024-01-01"],
            ["put", "rules", str(page)],
            ["put", "nowhere", str(page)],
            ["due", "--json"],
            ["withdraw", "rules", "refunds", "--version", "2024-01-01"],
            ["withdraw", "rules", "refunds", "--version", "2024-01-01", "--reason", "mistake"],
            ["withdraw", "rules", "refunds", "--version", "2024-01-01", "--reason", "mistake"],
        )
    ]
    unknown, early, held = [
        await _strata(ingestor, *command)
        for command in (
            ["withdraw", "rules", "[/refunds]", "--version", "1", "--reason", "mistake"],
            ["put", "rules", str(page), "--effective-from", "0001-01-01T00:00:00+14:00"],
            ["prove-deletion", "rules", "refunds", "--json"],
        )
    ]
    assert (unknown[0], unknown[1].strip()) == (1, "not there: rules/[/refunds] 1")
    assert (early[0], "must be a date" in early[2]) == (2, True)
    assert (held[0], json.loads(held[1])["absent"]) == (4, False)
    assert (code, stored["document_id"], stored["version"], stored["changed"]) == (0, "refunds", "2024-01-01", True)
    assert [result[0] for result in (refused, undated, nowhere, no_reason, again)] == [1] * 5
    assert "unreadable_document: 'broken.pdf'" in refused[2]
    assert "missing_effective_date" in undated[2]
    assert "known: ['rules']" in nowhere[2]
    assert "reason" in no_reason[2]
    assert (gone[0], gone[1].strip()) == (0, "withdrawn: rules/refunds 2024-01-01")
    assert due[0] == 4
    listed = [(entry["review_date"], entry.get("document_id", "")) for entry in json.loads(due[1])["due"]]
    assert listed == [("2020-01-01", ""), ("2021-01-01", "refunds")]
