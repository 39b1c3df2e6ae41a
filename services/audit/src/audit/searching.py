"""Finds records by what is readable of them and by what they are about, page by page, newest first."""

from datetime import UTC, datetime
from typing import Any

from audit import leaves, segments
from audit.disclosing import ALL_TENANTS, READ, require
from audit.ledger import Ledger, LoggedRecord, timestamp
from audit.terms import ADAPTER, DOCUMENT, POLICY, USER, VERDICT, user_subject
from audit.view import Found
from chassis.errors import InvalidArgumentError, PermissionDeniedError
from strata.audit.v1.audit_service_pb2 import SearchRecordsRequest
from tlog.tree import leaf_hash

_USUAL, _MOST = 50, 500
_LONGEST = 300


def search(ledger: Ledger, request: SearchRecordsRequest) -> tuple[list[LoggedRecord], str]:
    """Return one page of records, without what is sealed, and where the next one begins; raise for what may not be asked."""
    conditions, values = _conditions(ledger, request)
    limit = min(request.limit or _USUAL, _MOST)
    # The conditions are ours, what is looked for goes in as values.
    query = f"SELECT position, segment, offset FROM records r WHERE {' AND '.join(conditions)} ORDER BY position DESC LIMIT ?"  # noqa: S608
    found = [Found(*row) for row in ledger.view.rows(query, (*values, limit + 1))]
    page = found[:limit]
    return [_logged(ledger, place) for place in page], str(page[-1].position) if len(found) > limit else ""


def _logged(ledger: Ledger, place: Found) -> LoggedRecord:
    raw = segments.read_line(ledger.folder / segments.name(place.segment), place.offset)
    return LoggedRecord(place.position, leaf_hash(raw), leaves.clear_record(leaves.decode(raw)), erased=False)


def _conditions(ledger: Ledger, request: SearchRecordsRequest) -> tuple[list[str], list[Any]]:
    tenant = _tenant(request)
    conditions: list[str] = ["position < ?"]
    values: list[Any] = [_cursor(request.cursor)]

    def add(condition: str, *more: object) -> None:
        conditions.append(condition)
        values.extend(more)

    if tenant:
        add("tenant = ?", tenant)
    if request.id:
        add("(request_id = ? OR trace_id = ?)", request.id, request.id)
    if request.step:
        add("step = ?", request.step)
    if request.since:
        add("stored_at >= ?", _moment("since", request.since))
    if request.until:
        add("stored_at < ?", _moment("until", request.until))
    wanted = _terms(ledger, request, tenant)
    selections = [_selection(tenant, kind, value) for kind, value in wanted]
    for condition, more in selections if len(selections) > 1 else ():
        # What is looked for may stand in different records of one request.
        add(f"request_id IN (SELECT request_id {condition})", *more)
    if selections:
        any_of = " OR ".join(f"position IN (SELECT position {condition})" for condition, _ in selections)
        add(f"({any_of})", *(value for _, more in selections for value in more))
    return conditions, values


def _tenant(request: SearchRecordsRequest) -> str:
    require(request.caller, READ)
    every = ALL_TENANTS in request.caller.permissions
    tenant = request.tenant or ("" if every else request.caller.tenant)
    if not every and tenant != request.caller.tenant:
        raise PermissionDeniedError("the records of another tenant need audit:all")
    return tenant


def _terms(ledger: Ledger, request: SearchRecordsRequest, tenant: str) -> list[tuple[str, str]]:
    named = [(DOCUMENT, request.document), (ADAPTER, request.adapter), (VERDICT, request.verdict), (POLICY, request.policy)]
    found = [(kind, value[:_LONGEST]) for kind, value in named if value]
    if request.user:
        if not tenant:
            raise InvalidArgumentError("a user is looked up within a tenant; give one")
        found.append((USER, ledger.vault.token(tenant, user_subject(request.user))))
    return found


def _selection(tenant: str, kind: str, value: str) -> tuple[str, list[str]]:
    condition, values = "FROM terms WHERE kind = ?", [kind]
    if tenant:
        condition, values = "FROM terms WHERE tenant = ? AND kind = ?", [tenant, kind]
    if kind == DOCUMENT:
        # A document without a version stands for all of them; what follows '@' is 'A'.
        return f"{condition} AND (value = ? OR (value >= ? AND value < ?))", [*values, value, f"{value}@", f"{value}A"]
    return f"{condition} AND value = ?", [*values, value]


def _cursor(text: str) -> int:
    if not text:
        return 2**62
    if not text.isdecimal() or len(text) > 18:
        raise InvalidArgumentError("the cursor is none that a page ended with")
    return int(text)


def _moment(name: str, text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidArgumentError(f"{name} is no moment as ISO 8601 writes it: {text[:40]!r}") from error
    return timestamp(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
