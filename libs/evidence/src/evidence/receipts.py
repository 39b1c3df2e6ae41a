"""Receipts: what a client keeps of an answer, and checks on its own."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from evidence import cose
from evidence.findings import Findings
from evidence.records import canonical, check_included, decoded, header_of, open_signed, opened
from tlog.notes import COSIGNATURE, Signer, Verifier, parse_verifier

KIND = "strata-receipt"
VERSION = 1
CONTENT_TYPE = "application/strata-receipt+json"


def to_cose(receipt: dict[str, Any], signer: Signer) -> bytes:
    """Return a receipt as COSE_Sign1 by the log's key."""
    return cose.sign(canonical(receipt), signer, content_type=CONTENT_TYPE)


def read(content: bytes) -> tuple[dict[str, Any], bytes | None]:
    """Return the receipt in a file, JSON or COSE_Sign1, and the file again when it is the latter; raise ValueError for neither."""
    is_json = content.lstrip()[:1] == b"{"
    found = json.loads(content if is_json else cose.payload_of(content))
    if not isinstance(found, dict) or found.get("kind") != KIND or found.get("v") != VERSION:
        raise ValueError(f"not a {KIND} of version {VERSION}")
    return found, None if is_json else content


def keys_in(document: dict[str, Any]) -> list[Verifier]:
    """Return the keys that a receipt or bundle names itself, the log's first; raise InvalidNoteError for one that is none."""
    return [parse_verifier(key) for key in (document["verifier_key"], *document["witness_keys"])]


def verify(content: bytes, keys: Iterable[Verifier] = (), *, text: bytes | None = None) -> Findings:
    """Check a receipt against `keys`, or without any against those that it names; `text` is the answer that it should be for.

    Each witness among `keys` must have cosigned. No file and no network is used.
    """
    found, trusted = Findings(), list(keys)
    with found.naming("receipt"):
        receipt, signed = read(content)
        found.facts |= {"request_id": receipt["request_id"], "text_sha256": receipt["text_sha256"], "index": receipt["index"]}
        used = trusted or keys_in(receipt)
        found.facts |= {"keys": "given" if trusted else "in the file", "cose": signed is not None}
        if signed is not None:
            with found.naming("signature"):
                cose.verify(signed, used, content_type=CONTENT_TYPE)
        _check_checkpoint(found, receipt, used, must_all_sign=bool(trusted))
        _check_record(found, receipt)
        if text is not None:
            same = hashlib.sha256(text).hexdigest() == receipt["text_sha256"]
            found.require(holds=same, what="text", why="it is not the one that the receipt is for")
    return found


def _check_checkpoint(found: Findings, receipt: dict[str, Any], keys: list[Verifier], *, must_all_sign: bool) -> None:
    with found.naming("checkpoint"):
        signed = open_signed(receipt["checkpoint"], keys)
        found.facts |= {"log": signed.checkpoint.origin, "size": signed.checkpoint.size, "cosigned_by": sorted(signed.witnesses)}
        missing = {key.name for key in keys if key.algorithm == COSIGNATURE} - set(signed.witnesses)
        if missing and must_all_sign:
            found.problem("witnesses", f"{', '.join(sorted(missing))} did not cosign")
        elif not signed.witnesses:
            found.remarks.append("no witness has cosigned: only the log itself says so")
        with found.naming("inclusion"):
            check_included(decoded(receipt["leaf"]), receipt["index"], receipt["proof"], signed.checkpoint)


def _check_record(found: Findings, receipt: dict[str, Any]) -> None:
    with found.naming("record"):
        leaf = decoded(receipt["leaf"])
        header, _ = header_of(leaf)
        of_request = header["request_id"] == receipt["request_id"] and header["step"] == "response"
        found.require(holds=of_request, what="record", why="it is not the response to this request")
        record = opened(leaf, receipt["record_key"])
        same = record["details"]["text_sha256"] == receipt["text_sha256"]
        found.require(holds=same, what="record", why="it states another text")
        found.facts |= {"outcome": header.get("outcome", ""), "phase": header.get("phase", ""), "stored_at": header.get("stored_at", "")}
