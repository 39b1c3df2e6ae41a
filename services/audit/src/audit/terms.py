"""What a record is found by beside its identifiers: user, document version, adapter, verdict, policy."""

from collections.abc import Callable, Iterator
from typing import Any

USER, DOCUMENT, ADAPTER, VERDICT, POLICY = "user", "document", "adapter", "verdict", "policy"
_ESCALATE = "escalate"
_MOST = 100
_MOST_CHARACTERS = 300

# Gives the name under which a subject of a tenant is found, which tells nobody who it is.
Token = Callable[[str, str], str]


def unnamed(_tenant: str, _subject: str) -> str:
    """Stand for a view in which nobody is looked up."""
    return ""


def user_subject(user: str) -> str:
    """Return how the store of keys names a user."""
    return f"user/{user}"


def document_value(document: str, version: str) -> str:
    """Return how a version of a document is found."""
    return f"{document}@{version}"


def terms(record: dict[str, Any], token: Token) -> set[tuple[str, str]]:
    """Return what a record is found by, as kind and value; users are hidden behind their token."""
    found = set()
    if (user := record.get("user")) and (hidden := token(str(record.get("tenant", "")), user_subject(str(user)))):
        found.add((USER, hidden))
    if record.get("step") == _ESCALATE:
        found.add((VERDICT, _ESCALATE))
    if isinstance(code := record.get("code"), str) and code:
        found.add((VERDICT, code[:_MOST_CHARACTERS]))
    details = record.get("details")
    if isinstance(details, dict):
        for kind, value in _of_details(details):
            if isinstance(value, str) and value and len(found) < _MOST:
                found.add((kind, value[:_MOST_CHARACTERS]))
    return found


def _of_details(details: dict[str, Any]) -> Iterator[tuple[str, object]]:
    yield ADAPTER, details.get("adapter")
    for name in ("passages", "citations"):
        for one in _dicts(details.get(name)):
            yield DOCUMENT, document_value(str(one.get("document", "")), str(one.get("version", "")))
    # What people decided.
    yield VERDICT, details.get("decision")
    for verdict in [*_dicts([details.get("verdict")]), *_dicts(details.get("checks"))]:
        yield VERDICT, verdict.get("decision")
        yield VERDICT, verdict.get("code")
    yield POLICY, details.get("rule_id")
    if "new_sha256" in details:
        yield POLICY, details.get("domain")
    for policy in _list(details.get("policy_ids")):
        yield POLICY, policy
    rules = details.get("rules")
    for rule in _dicts(rules if isinstance(rules, list) else [rules]):
        yield POLICY, rule.get("rule")


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _dicts(value: object) -> list[dict[str, Any]]:
    return [one for one in _list(value) if isinstance(one, dict)]
