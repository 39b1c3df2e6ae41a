"""Puts together an evidence bundle: what the log proves, and the texts and cards to which its records point."""

import gzip
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from chassis import rpc
from chassis.errors import ServiceError
from chassis.messaging import to_json
from chassis.settings import ServiceSettings
from cli.place import repository
from evidence import bundles
from evidence.records import canonical, encoded, opened
from strata.audit.v1 import audit_service_pb2 as pb
from strata.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.guardrail.v1.guardrail_service_pb2 import ListChecksRequest
from strata.guardrail.v1.guardrail_service_pb2_grpc import GuardrailServiceStub

_TIMEOUT_SECONDS = 30
_CARD_FILES = ("README.md", "manifest.json", "metrics.json")
_POLICY_FILES = ("policy.yaml", "policies.cedar")


async def bundle(settings: ServiceSettings, caller: Caller, request_id: str, target: Path) -> dict[str, Any]:
    """Write the bundle of a request to `target` and return its manifest; raise ServiceError when the log does not give it."""
    async with rpc.channel(settings, "cli", "audit") as channel:
        stub = AuditServiceStub(channel)
        request = pb.GetEvidenceRequest(caller=caller, request_id=request_id)
        found: pb.GetEvidenceResponse = await rpc.call(stub.GetEvidence, request, timeout=_TIMEOUT_SECONDS)
        rows = [_row(record) for record in found.records]
        records = [row["record"] for row in rows if row["record"] is not None]
        files = {
            bundles.CHECKPOINT: found.checkpoint.encode(),
            bundles.KEYS: canonical({"verifier_key": found.verifier_key, "witness_keys": list(found.witness_keys)}),
            bundles.RECORDS: canonical(rows),
            **_documents(records),
            **_policies(records),
            **_adapter_cards(records),
            **await _check_cards(settings),
        }
        files = bundles.with_readme(files)
        manifest = bundles.manifest_of(request_id, found.tenant, datetime.now(UTC).isoformat(), files)
        sealed = pb.SignManifestRequest(caller=caller, manifest_json=canonical(manifest))
        signed: pb.SignManifestResponse = await rpc.call(stub.SignManifest, sealed, timeout=_TIMEOUT_SECONDS)
    bundles.write(target, files, manifest, signed.cose)
    return manifest


def _row(record: pb.EvidenceRecord) -> dict[str, Any]:
    key = encoded(record.record_key) if record.record_key else None
    return {
        "index": record.index,
        "leaf": encoded(record.leaf),
        "proof": [encoded(part) for part in record.proof],
        "record_key": key,
        "record": None if key is None else opened(record.leaf, key),
    }


def _documents(records: list[dict[str, Any]]) -> dict[str, bytes]:
    """Return the versions that were retrieved, with those texts of the declared collections that still have the recorded digest."""
    listed, files, wanted = bundles.retrieved(records), {}, bundles.cited(records)
    digests = {entry["sha256"] for entry in listed}
    texts = {digest: text for text in _declared_texts() if (digest := hashlib.sha256(text).hexdigest()) in digests} if digests else {}
    for number, entry in enumerate(listed, start=1):
        text = texts.get(entry["sha256"])
        entry |= {"cited": (entry["document"], entry["version"]) in wanted, "file": None}
        if text is not None:
            entry["file"] = f"documents/{number:03d}.txt"
            files[entry["file"]] = text
    return {bundles.DOCUMENTS: canonical(listed), **files}


def _declared_texts() -> Iterator[bytes]:
    for declaration in sorted(repository().glob("domains/*/domain.yaml")):
        for collection in (yaml.safe_load(declaration.read_text()) or {}).get("collections") or ():
            path = declaration.parent / str(collection.get("path", ""))
            if not path.is_file():
                continue
            with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
                for line in file:
                    yield str(json.loads(line).get("text", "")).encode()


def _policies(records: list[dict[str, Any]]) -> dict[str, bytes]:
    """Return the policies; a text that is no longer the one in force then stays out, and its digest alone is named."""
    in_force = {
        str(record["details"].get("domain")): str(record["details"].get("new_sha256"))
        for record in records
        if record.get("step") in bundles.CONTEXT_STEPS
    }
    listed: list[dict[str, Any]] = []
    files = {}
    for folder in sorted(path.parent for path in repository().glob("domains/*/domain.yaml")):
        for name in _POLICY_FILES:
            if not (folder / name).is_file():
                continue
            content, label = (folder / name).read_bytes(), folder.name if name == _POLICY_FILES[0] else f"{folder.name}/{name}"
            digest = hashlib.sha256(content).hexdigest()
            path = f"policies/{folder.name}/{name}"
            if in_force.get(label, digest) == digest:
                files[path] = content
                listed.append({"domain": label, "sha256": digest, "file": path})
            else:
                listed.append({"domain": label, "sha256": in_force[label], "file": None})
    return {bundles.POLICIES: canonical(listed), **files}


def _adapter_cards(records: list[dict[str, Any]]) -> dict[str, bytes]:
    folders = {path.name: path for path in repository().glob("models/adapters/*@*")}
    found = {}
    for adapter in sorted(bundles.adapters(records) & folders.keys()):
        for name in _CARD_FILES:
            if (path := folders[adapter] / name).is_file():
                found[f"cards/adapters/{adapter}/{name}"] = path.read_bytes()
    return found


async def _check_cards(settings: ServiceSettings) -> dict[str, bytes]:
    """Return the cards of the checks as the running guardrail states them; none while it is away."""
    try:
        async with rpc.channel(settings, "cli", "guardrail") as channel:
            found = await rpc.call(GuardrailServiceStub(channel).ListChecks, ListChecksRequest(), timeout=_TIMEOUT_SECONDS)
    except ServiceError:
        return {}
    return {"cards/checks.json": json.dumps([to_json(card) for card in found.cards], indent=1, sort_keys=True).encode()}
