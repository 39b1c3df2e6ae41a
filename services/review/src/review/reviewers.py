"""Who may see and decide what."""

from chassis.errors import NotFoundError, PermissionDeniedError
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.review.v1.review_events_pb2 import ReviewItem

READ, DECIDE, EXPORT = "review:read", "review:decide", "review:export"


def name_of(caller: Caller) -> str:
    """Return who a caller is for the record: the user, or the credential where it names none."""
    return caller.user or caller.key_id


def require(caller: Caller, permission: str) -> None:
    """Raise PermissionDeniedError for a caller without the permission, or whom nobody could name afterwards."""
    if permission not in caller.permissions:
        raise PermissionDeniedError(f"the role {caller.role!r} lacks {permission}")
    if not name_of(caller):
        raise PermissionDeniedError("the credential names neither a user nor itself")


def in_charge(item: ReviewItem, caller: Caller) -> bool:
    """Return whether a review belongs to the caller's tenant and to its role."""
    return item.tenant == caller.tenant and (not item.reviewer_roles or caller.role in item.reviewer_roles)


def require_in_charge(item: ReviewItem, caller: Caller) -> None:
    """Raise NotFoundError for a review that is not for this caller's eyes."""
    if not in_charge(item, caller):
        raise NotFoundError(f"no review of {item.request_id!r}")


def is_requester(item: ReviewItem, caller: Caller) -> bool:
    """Return whether the caller, under whatever credential, has asked for what is reviewed."""
    asked = item.requester
    return bool((asked.key_id and asked.key_id == caller.key_id) or (asked.user and asked.user == caller.user))


def may_claim(item: ReviewItem, caller: Caller) -> bool:
    """Return whether a claim of this caller could be granted, leases of others aside."""
    judged = any(j.reviewer == name_of(caller) and j.decision != "label" for j in item.judgements)
    return item.status == "open" and in_charge(item, caller) and not is_requester(item, caller) and not judged
