"""Compose and the Helm chart run the same processes, on the ports of the contracts, and hold no secret."""

import re
from pathlib import Path
from typing import Any

import yaml

from chassis.provisioning import KEEP_KEYS, KEEPS, READS, provision, provision_folders
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


def _wanted(module: str) -> dict[str, tuple[str, bool]]:
    """Return what a service mounts: folder of the state volume and whether it is read-only, by place."""
    found = {
        "/state/credentials": ("public", True),
        f"/state/credentials/{module}": (f"credentials/{module}", module not in KEEP_KEYS),
    }
    found |= {f"/state/{name}": (name, False) for name in KEEPS.get(module, ())}
    return found | {f"/state/{name}": (name, True) for name in READS.get(module, ())}


_ENGINE = {"/state/credentials/inference/engine.key": ("credentials/inference/engine.key", True), "/state/models": ("models", False)}
_BUS = {"/state/bus": ("bus", True), "/state/nats": ("nats", False)}
_WHOLE = {"/state": ("", False)}


def _compose_mounts(service: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    found = {}
    for volume in service.get("volumes", ()):
        if isinstance(volume, dict):
            found[volume["target"]] = (volume["volume"]["subpath"], volume.get("read_only", False))
        elif volume.startswith("state:"):
            found[volume.split(":")[1]] = ("", volume.endswith(":ro"))
    return found


def test_in_compose_each_service_is_given_its_own_keys_and_data_alone() -> None:
    """No container but the operator's jobs sees another service's keys, the authority's or the provisioner's."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    wanted = {name: _wanted(identity.name) for name, identity in PROCESSES.items()}
    wanted |= {
        "engine": _ENGINE,
        "nats": _BUS,
        "credentials": _WHOLE,
        "streams": _WHOLE,
        "log-key": {"/state/credentials": ("public", True)},
    }
    assert {name: mounts for name, service in compose.items() if (mounts := _compose_mounts(service))} == wanted
    assert all("/state:mode=0555" in compose[name]["tmpfs"] for name in PROCESSES)
    # Its URL in models.yaml is of the loopback.
    assert compose["engine"]["network_mode"] == "service:inference"


def test_in_the_chart_each_service_is_given_its_own_keys_and_data_alone() -> None:
    """The same in a cluster: beside the operator's pod and the jobs, whole volumes are seen only by containers that wait."""
    for name, service in _values()["services"].items():
        found = (tuple(service.get("keeps", ())), tuple(service.get("reads", ())), service.get("keepsKeys", False))
        assert found == (KEEPS.get(service["module"], ()), READS.get(service["module"], ()), service["module"] in KEEP_KEYS), name
    mounts: dict[str, list[tuple[str, str, bool]]] = {}
    for path in sorted((CHART / "templates").iterdir()):
        for fields in re.findall(r"\{name: state, ((?:[^{}]|\{\{[^{}]*\}\})*)\}", path.read_text()):
            mount = dict(field.split(": ", 1) for field in fields.split(", "))
            if "mountPath" in mount:
                row = (mount["mountPath"], mount.get("subPath", ""), mount.get("readOnly", "false") != "false")
                mounts.setdefault(path.name, []).append(row)
    own = "/state/credentials/{{ .module }}", "credentials/{{ .module }}", True
    kept = "/state/{{ . }}", "{{ . }}"
    bus = "/state/bus", "bus", True
    engine = [(place, *what) for place, what in _ENGINE.items()]
    assert mounts == {
        "_helpers.tpl": [("/state/credentials", "public", True), own, (*kept, False), (*kept, True)],
        "nats.yaml": [("/state", "", False), bus, bus],
        "services.yaml": [("/state", "", True), *engine],
        "state.yaml": [("/state", "", False), ("/state", "", False)],
    }
    assert "readOnly: {{ not .keepsKeys }}" in (CHART / "templates" / "_helpers.tpl").read_text()


def test_what_is_mounted_is_there_and_what_is_public_holds_no_key(tmp_path: Path) -> None:
    """The first start makes every folder that a container is given; an older installation's files move there, and their names stay."""
    provision(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in ("nats.conf", "credentials/ca.pem", "credentials/release_keys.json")}
    for name, content in before.items():
        (tmp_path / name).unlink()
        (tmp_path / name).write_bytes(content)
    provision(tmp_path)
    provision_folders(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    mounted = {source for service in PROCESSES.values() for source, _ in _wanted(service.name).values()}
    mounted |= {source for source, _ in (*_ENGINE.values(), *_BUS.values())}
    assert all((tmp_path / name).exists() for name in mounted)
    public = tmp_path / "public"
    assert {path.name for path in public.iterdir() if path.is_dir()} >= {identity.name for identity in PROCESSES.values()}
    assert {path.name for path in public.iterdir() if path.is_file()} == {
        "ca.pem", "release_keys.json", "audit_log.vkey", "audit_witnesses.json",
    }  # fmt: skip
    assert not any(b"PRIVATE" in path.read_bytes() for path in public.iterdir() if path.is_file())
    assert (public / "release_keys.json").samefile(tmp_path / "credentials" / "release_keys.json")
    modes = {path.stat().st_mode & 0o077 for path in tmp_path.rglob("*")}
    assert modes == {0}
