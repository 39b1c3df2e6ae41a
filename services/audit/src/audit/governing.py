"""Erasure, expiry and legal hold: who may make records unreadable, and what is put on record of it."""

from dataclasses import dataclass
from datetime import UTC, datetime

from audit.disclosing import ALL_TENANTS
from audit.erasing import Traces, traces
from audit.ledger import Ledger
from audit.terms import USER, user_subject
from chassis.errors import InvalidArgumentError, PermissionDeniedError
from strata.gateway.v1.gateway_events_pb2 import Caller

ERASE = "audit:erase"
_LEAST_REASON, _MOST_REASON = 3, 500


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure destroyed: keys, and requests of the user that were found."""

    keys: int
    requests: int


def check(caller: Caller, tenant: str, reason: str | None) -> None:
    """Raise unless the caller may govern the records of a tenant and says why, where that is asked."""
    if not {ERASE, ALL_TENANTS} & set(caller.permissions):
        raise PermissionDeniedError(f"this needs {ERASE}")
    if tenant != caller.tenant and ALL_TENANTS not in caller.permissions:
        raise PermissionDeniedError("the records of another tenant need audit:all")
    if reason is not None and not _LEAST_REASON <= len(reason.strip()) <= _MOST_REASON:
        raise InvalidArgumentError(f"a reason has {_LEAST_REASON} to {_MOST_REASON} characters")


def is_logged(ledger: Ledger, record_id: str) -> bool:
    """Tell whether the log has a record, and with it whatever was published before it."""
    return bool(ledger.view.rows("SELECT 1 FROM records WHERE record_id = ?", (record_id,)))


def erase(ledger: Ledger, tenant: str, user: str, known: Traces, *, open_seconds: float) -> Erased | Traces:
    """Destroy the keys of all that is about a user; raise FailedPreconditionError while a hold is on.

    Where the log has come to know more of the user than is `known`, return that, and destroy nothing.
    """
    began = datetime.now(UTC).isoformat()
    with ledger.exclusive():
        news = traces(ledger, tenant, user, known, open_seconds=open_seconds)
        if news.is_beyond(known):
            return news
        # The hold of the user is asked first, before anything else is gone.
        count = ledger.vault.erase(tenant, user_subject(user))
        for subject in known.subjects | news.subjects:
            count += ledger.vault.erase(tenant, subject)
        ledger.view.forget(ledger.vault.erased_since(began))
    return Erased(count, len(known.requests))


def _held_keys(ledger: Ledger) -> set[str]:
    """Return the keys of all records of the requests of held users: not every service knows whom a record is about."""
    query = (
        "SELECT DISTINCT key FROM records WHERE tenant = ? AND request_id IN "
        "(SELECT request_id FROM terms WHERE tenant = ? AND kind = ? AND value = ?)"
    )
    held = [(tenant, token) for tenant, token, *_ in ledger.vault.holds() if token]
    return {row[0] for tenant, token in held for row in ledger.view.rows(query, (tenant, tenant, USER, token))}


def expire(ledger: Ledger, retention: str, before: str) -> int:
    """Destroy the keys of a retention class of months before `before` (YYYY-MM) that no hold keeps; return how many."""
    began = datetime.now(UTC).isoformat()
    with ledger.exclusive():
        count = ledger.vault.expire(retention, before, keep=_held_keys(ledger))
        if count:
            ledger.view.forget(ledger.vault.erased_since(began))
    return count


def rebuild(ledger: Ledger) -> int:
    """Make the lookups anew from the log; return how many records they hold."""
    with ledger.exclusive():
        ledger.view.reset(ledger.head.origin)
        ledger.catch_up()
        return ledger.view.size


def subject_of(user: str) -> str:
    """Return the subject of a hold: a user, or nobody in particular for the whole tenant."""
    return user_subject(user) if user else ""


def name_of(caller: Caller) -> str:
    """Return who sets a hold, for whoever has to ask them."""
    return f"{caller.tenant}/{caller.user or caller.key_id or caller.role}"


def described(ledger: Ledger, tenant: str, subject: str, reason: str) -> dict[str, str]:
    """Return what is put on record about whom something was done to, which names nobody."""
    token = ledger.vault.token(tenant, user_subject(subject)) if subject else ""
    return {"of_tenant": tenant, "subject_token": token, "reason": reason}
