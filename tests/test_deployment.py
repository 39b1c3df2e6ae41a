"""Compose and the Helm chart run the same processes, on the ports of the contracts, and hold no secret."""

import re
from pathlib import Path
from typing import Any

import yaml

from contracts.identities import SERVICES

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "deploy" / "helm" / "strata"
# Identities without a port are no processes of ours: a writer of change events, and the command line.
PROCESSES = {identity.name.replace("_", "-"): identity for identity in SERVICES if identity.http_port}


def _values() -> dict[str, Any]:
    return dict(yaml.safe_load((CHART / "values.yaml").read_text()))


def test_every_process_is_in_the_chart_and_in_compose() -> None:
    """A service that is added to the contracts is deployed everywhere, with its own ports and module."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    values = _values()["services"]
    assert set(values) == set(PROCESSES)
    assert set(PROCESSES) <= set(compose)
    for name, identity in PROCESSES.items():
        assert values[name]["module"] == identity.name
        assert compose[name]["command"] == ["python", "-m", identity.name]
        assert (values[name]["http"], values[name].get("grpc")) == (identity.http_port, identity.grpc_port)
        assert {"requests", "limits"} <= set(values[name]["resources"])


def test_bus_and_search_engine_are_the_same_images_everywhere() -> None:
    """What is tried with compose is what runs in a cluster."""
    compose, values = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"], _values()
    assert values["nats"]["image"] == compose["nats"]["image"]
    assert values["opensearch"]["image"] == compose["opensearch"]["image"]
    assert "opensearchproject/" in values["opensearch"]["image"]


def test_the_chart_has_no_secret_of_its_own_and_reads_only_declared_values() -> None:
    """Secrets are named, never given; a template that reads an undeclared value would render to nothing."""
    values = _values()
    assert [
        values["sources"]["existingSecret"],
        values["opensearch"]["adminExistingSecret"],
        values["opensearch"]["tlsExistingSecret"],
    ] == [
        "",
        "",
        "",
    ]
    for path in sorted((CHART / "templates").iterdir()):
        text = path.read_text()
        assert "kind: Secret" not in text
        assert text.count("{{") == len(re.findall(r"\{\{[^{}]*\}\}", text))
        for name in re.findall(r"\.Values\.([A-Za-z.]+)", text):
            found: Any = values
            for part in name.split("."):
                assert part in found, f"{path.name} reads .Values.{name}, which values.yaml does not declare"
                found = found[part]


def test_the_bus_of_the_chart_syncs_every_message() -> None:
    """Without a sync for each message the bus does not start: what was acknowledged would not survive its node."""
    assert '"sync_interval": "always"' in (CHART / "templates" / "nats.yaml").read_text()
