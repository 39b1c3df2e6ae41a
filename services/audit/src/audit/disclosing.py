"""What is given away of the log: records with the proof that it has them, and with the key of each of them alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from audit import leaves, segments
from audit.leaves import InvalidLeafError, Leaf
from audit.ledger import Ledger
from audit.proving import Prover
from audit.trust import load_signer
from audit.view import Found
from chassis.errors import InternalError, InvalidArgumentError, NotFoundError, PermissionDeniedError
from evidence import bundles, receipts
from evidence.cose import sign
from evidence.records import encoded
from evidence.sealing import SealedError
from strata.audit.v1.audit_service_pb2 import EvidenceRecord, GetEvidenceResponse
from strata.gateway.v1.gateway_events_pb2 import Caller

READ_TRACE, READ, ALL_TENANTS = "trace:read", "audit:read", "audit:all"
_SYSTEM = "system"
_POLICY_CHANGED = "policy_changed"


@dataclass(frozen=True, slots=True)
class Entry:
    """A record of the log, as written and as opened; `record` and `key` are None when its key was destroyed."""

    index: int
    raw: bytes
    leaf: Leaf
    record: dict[str, Any] | None
    key: bytes | None


def entries(ledger: Ledger, places: Sequence[Found]) -> list[Entry]:
    """Return the records at these places; raise InternalError for one that is damaged."""
    found = []
    try:
        read = [(place, segments.read_line(ledger.folder / segments.name(place.segment), place.offset)) for place in places]
        decoded = [(place, raw, leaves.decode(raw)) for place, raw in read]
        keys = ledger.vault.open_keys({leaf.key for *_, leaf in decoded})
        for place, raw, leaf in decoded:
            secret = keys.get(leaf.key)
            record = None if secret is None else leaves.open_record(leaf, secret)
            found.append(Entry(place.position, raw, leaf, record, None if secret is None else leaves.own_key(leaf, secret)))
    except (InvalidLeafError, SealedError) as error:
        raise InternalError(f"the audit log is damaged: {error}") from error
    return found


def of_request(ledger: Ledger, request_id: str, caller: Caller) -> list[Entry]:
    """Return the records of a request that the caller's tenant made, oldest first; raise NotFoundError when there are none."""
    if not request_id:
        raise InvalidArgumentError("request_id is empty")
    every = ALL_TENANTS in caller.permissions
    found = [
        entry
        for entry in entries(ledger, ledger.view.trace(request_id))
        if entry.leaf.header.get("request_id") == request_id and (every or entry.leaf.header.get("tenant") == caller.tenant)
    ]
    if not found:
        raise NotFoundError(f"no records of {request_id!r}")
    return found


def receipt(ledger: Ledger, request_id: str, caller: Caller) -> tuple[dict[str, Any], bytes]:
    """Return the receipt of an answer, also as COSE_Sign1, for who asked and for who may see traces.

    Raises NotFoundError before there is an answer, and for everybody else.
    """
    found = of_request(ledger, request_id, caller)
    if not {READ_TRACE, ALL_TENANTS} & set(caller.permissions) and not _asked(found, caller):
        raise NotFoundError(f"no records of {request_id!r}")
    answers = [entry for entry in found if _text_digest(entry)]
    if not answers:
        raise NotFoundError(f"the log has no answer to {request_id!r} that can be read, not yet or not any more")
    # The first says best what was sent, but what is known to have arrived counts more.
    answer = next((entry for entry in answers if entry.leaf.header.get("phase") == "verified"), answers[-1])
    ledger.publish()
    proof = Prover(ledger.folder).inclusion(answer.index, answer.raw)
    made = {
        "kind": receipts.KIND,
        "v": receipts.VERSION,
        "request_id": request_id,
        "text_sha256": _text_digest(answer),
        "record_key": encoded(answer.key or b""),
        **proof,
    }
    return made, receipts.to_cose(made, load_signer(ledger.folder.parent))


def _asked(found: list[Entry], caller: Caller) -> bool:
    """Tell whether a request was made with the caller's credential, and by this user where it names one."""
    for entry in found:
        if entry.record is not None and entry.leaf.header.get("step") == "request":
            details = entry.record.get("details") or {}
            return bool(caller.key_id) and (details.get("key_id"), entry.record.get("user", "")) == (caller.key_id, caller.user)
    return False


def _text_digest(entry: Entry) -> str:
    header, record = entry.leaf.header, entry.record or {}
    if header.get("step") != "response" or header.get("outcome") != "succeeded":
        return ""
    return str((record.get("details") or {}).get("text_sha256", ""))


def evidence(ledger: Ledger, request_id: str, caller: Caller) -> GetEvidenceResponse:
    """Return the records of a request and the last change of each policy before it, all under one checkpoint."""
    require(caller, READ)
    found = of_request(ledger, request_id, caller)
    changes = _policies(ledger, found[0].index)
    ledger.publish()
    prover = Prover(ledger.folder)
    statement = prover.covering(found[-1].index)
    keys = prover.keys()
    return GetEvidenceResponse(
        tenant=str(found[0].leaf.header.get("tenant", "")),
        records=[
            EvidenceRecord(
                index=entry.index, leaf=entry.raw, proof=prover.path(entry.index, entry.raw, statement), record_key=entry.key or b""
            )
            for entry in (*changes, *found)
        ],
        checkpoint=statement.note,
        verifier_key=keys["verifier_key"],
        witness_keys=keys["witness_keys"],
    )


def _policies(ledger: Ledger, before: int) -> list[Entry]:
    query = "SELECT position, segment, offset FROM records WHERE tenant = ? AND step = ? AND position < ? ORDER BY position"
    rows = ledger.view.rows(query, (_SYSTEM, _POLICY_CHANGED, before))
    last: dict[str, Entry] = {}
    for entry in entries(ledger, [Found(*row) for row in rows]):
        last[str(((entry.record or {}).get("details") or {}).get("domain", ""))] = entry
    return sorted(last.values(), key=lambda entry: entry.index)


def sign_manifest(ledger: Ledger, manifest: bytes, caller: Caller) -> tuple[dict[str, Any], bytes]:
    """Return the manifest of a bundle and its signature by the log's key; raise InvalidArgumentError for anything else."""
    require(caller, READ)
    try:
        found = bundles.read_manifest(manifest)
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidArgumentError(f"not the manifest of a bundle: {error}") from error
    of_request(ledger, found["request_id"], caller)
    return found, sign(manifest, load_signer(ledger.folder.parent), content_type=bundles.CONTENT_TYPE)


def require(caller: Caller, permission: str) -> None:
    """Raise PermissionDeniedError unless the caller has a permission, or the one of all tenants."""
    if not {permission, ALL_TENANTS} & set(caller.permissions):
        raise PermissionDeniedError(f"this needs {permission}")
