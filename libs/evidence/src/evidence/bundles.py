"""Evidence bundles: one zip file with all that an outsider needs to check what happened to a request."""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evidence import cose
from evidence.findings import Findings
from evidence.receipts import keys_in
from evidence.records import canonical, check_included, decoded, header_of, open_signed, opened
from tlog.notes import COSIGNATURE, Checkpoint, Verifier

KIND = "strata-evidence"
VERSION = 1
CONTENT_TYPE = "application/strata-evidence+json"
CHECKPOINT, KEYS, RECORDS, DOCUMENTS, POLICIES = "checkpoint", "keys.json", "records.json", "documents.json", "policies.json"
MANIFEST, SIGNED_MANIFEST, README = "manifest.json", "manifest.cose", "README.txt"
# Records that stand beside those of the request: which policy was in force.
CONTEXT_STEPS = frozenset({"policy_changed"})
_MAX_BYTES = 256 * 1024**2
_MAX_FILES = 2_000
# What ends a zip file without a comment.
_END, _END_BYTES = b"PK\x05\x06", 22
_UNREADABLE = (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError)
_EPOCH = (2020, 1, 1, 0, 0, 0)
_TEXT = """Evidence about one request.

Check it with `strata audit verify-bundle FILE --key VKEY`, with the verifier keys of the log and of its witnesses got from
elsewhere than this file. By other tools:
- checkpoint is a C2SP signed note (tlog-checkpoint) with cosignatures (tlog-cosignature); keys.json names the keys.
- records.json: each `leaf` (base64) is a leaf of the RFC 6962 tree of that checkpoint at `index`, with its audit path `proof`.
- `sealed` in a leaf is base64 of nonce (12 bytes), SHA-256("strata audit key commitment v1" || record_key) and the
  AES-256-GCM ciphertext; additional data is the leaf without `sealed`, as JSON with sorted keys and no spaces.
- A record without `record_key` was erased: that it was there is proven, what it said nobody can read any more.
- manifest.cose is a COSE_Sign1 by the log's key over the digests of all files.
"""


def manifest_of(request_id: str, tenant: str, created_at: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return what is signed of a bundle: whose it is, and the digest of every file."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    return {"kind": KIND, "v": VERSION, "request_id": request_id, "tenant": tenant, "created_at": created_at, "files": digests}


def read_manifest(content: bytes) -> dict[str, Any]:
    """Return a manifest; raise ValueError, KeyError or TypeError when the bytes are none as this program writes them."""
    manifest: dict[str, Any] = json.loads(content)
    if (manifest["kind"], manifest["v"]) != (KIND, VERSION) or canonical(manifest) != content:
        raise ValueError(f"not a manifest of {KIND}, version {VERSION}, in canonical JSON")
    if not manifest["request_id"] or not isinstance(manifest["files"], dict):
        raise ValueError("the manifest names no request or no files")
    return manifest


def with_readme(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files and the page that says how to check them."""
    return {**files, README: _TEXT.encode()}


def write(path: Path, files: Mapping[str, bytes], manifest: dict[str, Any], signed: bytes) -> None:
    """Write the bundle."""
    everything = {**files, MANIFEST: canonical(manifest), SIGNED_MANIFEST: signed}
    # It holds keys that open records: for whoever made it alone, until they hand it on.
    path.touch(mode=0o600)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(everything.items()):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)


def verify(path: Path, keys: Iterable[Verifier] = ()) -> Findings:
    """Check a bundle against `keys`, or without any against those in it; nothing but the file is read.

    Each witness among `keys` must have cosigned.
    """
    found, trusted = Findings(), list(keys)
    with found.naming("bundle"):
        files = _read(path, found)
        used = trusted
        with found.naming(KEYS):
            used = trusted or keys_in(json.loads(files[KEYS]))
        found.facts |= {"keys": "given" if trusted else "in the file", "files": len(files)}
        _check_manifest(found, files, used)
        with found.naming(CHECKPOINT):
            signed = open_signed(files[CHECKPOINT].decode(), used)
            found.facts |= {"log": signed.checkpoint.origin, "size": signed.checkpoint.size, "cosigned_by": sorted(signed.witnesses)}
            missing = {key.name for key in used if key.algorithm == COSIGNATURE} - set(signed.witnesses)
            if missing and trusted:
                found.problem("witnesses", f"{', '.join(sorted(missing))} did not cosign")
            elif not signed.witnesses:
                found.remarks.append("no witness has cosigned: only the log itself says so")
            _check_contents(found, files, signed.checkpoint)
    return found


def _read(path: Path, found: Findings) -> dict[str, bytes]:
    """Return the files of a bundle, without those that cannot be read, which are problems; raise ValueError when it is none."""
    files = {}
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            names = {entry.filename for entry in entries}
            if len(entries) > _MAX_FILES or sum(entry.file_size for entry in entries) > _MAX_BYTES or len(names) != len(entries):
                raise ValueError("not a bundle: too many files, too large, or a name comes twice")
            # Readers of zip files pass over whatever stands before and behind; nobody signed it.
            file.seek(-_END_BYTES, os.SEEK_END)
            if file.read(len(_END)) != _END or archive.comment or min((entry.header_offset for entry in entries), default=0):
                found.problem("bundle", "there is something before or behind its files")
            for entry in entries:
                try:
                    files[entry.filename] = archive.read(entry)
                except _UNREADABLE as error:
                    found.problem(entry.filename, f"it cannot be read: {error}")
    except _UNREADABLE as error:
        raise ValueError(f"not a bundle: {error}") from error
    return files


def _check_manifest(found: Findings, files: Mapping[str, bytes], keys: list[Verifier]) -> None:
    payload = None
    with found.naming(SIGNED_MANIFEST):
        payload = cose.verify(files[SIGNED_MANIFEST], (key for key in keys if key.algorithm != COSIGNATURE), content_type=CONTENT_TYPE)
    if payload is None:
        return
    with found.naming(MANIFEST):
        found.require(holds=payload == files[MANIFEST], what=MANIFEST, why="it is not the one that was signed")
        manifest = read_manifest(payload)
        found.facts |= {name: manifest[name] for name in ("request_id", "tenant", "created_at")}
        listed = manifest["files"]
        for name in sorted(listed.keys() | files.keys() - {MANIFEST, SIGNED_MANIFEST}):
            if name not in files:
                found.problem(name, "missing from the bundle")
            elif name not in listed:
                found.problem(name, "not in the manifest")
            else:
                same = hashlib.sha256(files[name]).hexdigest() == listed[name]
                found.require(holds=same, what=name, why="not as it was when the bundle was signed")


def _check_contents(found: Findings, files: Mapping[str, bytes], checkpoint: Checkpoint) -> None:
    records: list[dict[str, Any]] = []
    erased = 0
    for entry in json.loads(files[RECORDS]):
        name = f"record {entry.get('index')}"
        with found.naming(name):
            leaf = decoded(entry["leaf"])
            check_included(leaf, entry["index"], entry["proof"], checkpoint)
            header, _ = header_of(leaf)
            # Where the manifest does not hold, nobody knows which request it was.
            wanted = found.facts.get("request_id", header.get("request_id"))
            of_request = header.get("request_id") == wanted or header.get("step") in CONTEXT_STEPS
            found.require(holds=of_request, what=name, why=f"of another request, {header.get('request_id')!r}")
            if entry["record_key"] is None:
                erased += 1
                records.append(header)
                continue
            record = opened(leaf, entry["record_key"])
            found.require(holds=entry["record"] == record, what=name, why="its text is not what the log holds")
            records.append(record)
    found.facts |= {"records": len(records), "erased": erased}
    with found.naming(DOCUMENTS):
        _check_documents(found, files, records)
    with found.naming(POLICIES):
        _check_policies(found, files, records)
    _check_cards(found, files, records)


def _check_documents(found: Findings, files: Mapping[str, bytes], records: list[dict[str, Any]]) -> None:
    """Check that each document is one that a record names by digest, and that what the answer cites is among them."""
    listed = json.loads(files[DOCUMENTS])
    known = {(p["document"], p["version"], p["sha256"]) for p in _each(records, "passages")}
    for entry in listed:
        name = f"document {entry['document']} {entry['version']}".rstrip()
        vouched = (entry["document"], entry["version"], entry["sha256"]) in known
        found.require(holds=vouched, what=name, why="no record of the request names this version")
        if entry.get("file"):
            same = hashlib.sha256(files[entry["file"]]).hexdigest() == entry["sha256"]
            found.require(holds=same, what=name, why="its text is not the one that was retrieved")
        else:
            found.remarks.append(f"{name}: only its digest is here")
    missing = cited(records) - {(entry["document"], entry["version"]) for entry in listed}
    for document, version in sorted(missing):
        found.problem(f"document {document} {version}".rstrip(), "cited by the answer, but not in the bundle")


def _check_policies(found: Findings, files: Mapping[str, bytes], records: list[dict[str, Any]]) -> None:
    changes = {_details(record).get("domain"): _details(record) for record in records if record.get("step") in CONTEXT_STEPS}
    for entry in json.loads(files[POLICIES]):
        name, digest = f"policy of {entry['domain']}", entry["sha256"]
        if entry["file"] is None:
            found.remarks.append(f"{name}: only its digest is here")
        else:
            same = hashlib.sha256(files[entry["file"]]).hexdigest() == digest
            found.require(holds=same, what=name, why="its text is not the one that is listed")
        if entry["domain"] not in changes:
            found.remarks.append(f"{name}: no record says that it was in force; the manifest alone vouches for it")
        else:
            same = changes[entry["domain"]].get("new_sha256") == digest
            found.require(holds=same, what=name, why="the record of its last change names another text")


def _check_cards(found: Findings, files: Mapping[str, bytes], records: list[dict[str, Any]]) -> None:
    for adapter in sorted(adapters(records)):
        if not any(name.startswith(f"cards/adapters/{adapter}/") for name in files):
            found.remarks.append(f"adapter {adapter}: its card is not in the bundle")


def cited(records: Iterable[dict[str, Any]]) -> set[tuple[str, str]]:
    """Return the versions of documents that the released answer cites."""
    released = [record for record in records if record.get("step") == "release"]
    return {(str(one["document"]), str(one["version"])) for one in _each(released, "citations")}


def adapters(records: Iterable[dict[str, Any]]) -> set[str]:
    """Return the adapters that made text."""
    return {str(_details(record)["adapter"]) for record in records if _details(record).get("adapter")}


def retrieved(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the versions of documents that were retrieved, each once."""
    kept = ("document", "version", "sha256", "collection")
    seen = {(p["document"], p["version"], p["sha256"]): {name: p.get(name, "") for name in kept} for p in _each(records, "passages")}
    return list(seen.values())


def _details(record: dict[str, Any]) -> dict[str, Any]:
    details = record.get("details")
    return details if isinstance(details, dict) else {}


def _each(records: Iterable[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    lists = [_details(record).get(name) for record in records]
    return [one for found in lists if isinstance(found, list) for one in found if isinstance(one, dict)]
