"""The commands that use OpenSearch, here because a node runs here: its start takes longer than all of them."""

import json
import os
import stat
from pathlib import Path
from typing import Any
from unittest.mock import patch

from typer.testing import CliRunner

from cli.main import app
from encoders import Encoder
from knowledge import backends

RULES = [
    {"doc_id": "refund", "version": "1", "effective_from": "2020-01-01", "title": "Refunds", "text": "Refunds take ten days."},
    {"doc_id": "refund", "version": "2", "effective_from": "2024-01-01", "title": "Refunds", "text": "Refunds take five days."},
]
ASKED = [
    {"query": "How long do refunds take?", "as_of": "2021-05-05", "doc_id": "refund", "version": "1"},
    {"query": "How long do refunds take?", "as_of": "2025-05-05", "doc_id": "refund", "version": "2"},
]


def _strata(*arguments: str) -> Any:
    with patch.dict(os.environ):
        result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_init_makes_what_both_services_need(cluster: Any) -> None:
    """After it, both services open the index of the installed encoder with nothing but the URL; a second run keeps everything."""
    node, encoder = cluster.node, Encoder.load().identity.key()
    command = ["knowledge", "init", "--url", node.url, "--ca", str(node.ca_file), "--admin-user", node.user]
    command += ["--admin-password-file", str(node.password_file), "--state", str(cluster.state_dir)]
    try:
        first = _strata(*command)
        passwords = {name: Path(file).read_text() for name, file in first["users"].items()}
        assert {stat.S_IMODE(Path(file).stat().st_mode) for file in first["users"].values()} == {0o600}
        assert _strata(*command) == first
        assert {name: Path(file).read_text() for name, file in first["users"].items()} == passwords
        assert any(encoder in name for name in first["indices"])
        assert backends.create(cluster.settings, cluster.state_dir, "ingestor", encoder).encoder == encoder
        assert set(backends.open_index(cluster.settings, cluster.state_dir, "retriever", encoder).versions()) == {"fluid", "anchored"}
    finally:
        cluster.admin.call("DELETE", f"/strata-*-{encoder}-*")


def test_asof_runs_on_opensearch_and_leaves_nothing(cluster: Any, tmp_path: Path) -> None:
    """The questions bring the versions that held; the indices of the run are gone afterwards."""
    for name, rows in (("documents", RULES), ("questions", ASKED)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    options = ["-o", "backend=opensearch", "-o", f"url={cluster.node.url}", "-o", f"state={cluster.state_dir}"]
    result = _strata("eval", "asof", "--data", str(tmp_path / "questions.jsonl"), *options)
    assert (result["n"], result["version_accuracy"], result["superseded_leak_rate"]) == (2, 1.0, 0.0)
    assert not [name for name in cluster.admin.call("GET", "/strata-*/_alias") if "-eval-" in name]
