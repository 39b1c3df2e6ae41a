"""How kept answers are named on the bus: whose they are, what made them, and the documents that they rest on."""

import hashlib
from collections.abc import Iterable

from contracts.streams import ANSWERS

ANSWERS_STREAM = f"KV_{ANSWERS}"
_PREFIX = f"$KV.{ANSWERS}."
ALL_ANSWERS = f"{_PREFIX}>"


def document_token(collection: str, document_id: str) -> str:
    """Return the token that stands for a document in the subject of each answer that rests on it."""
    return hashlib.sha256(f"{collection}/{document_id}".encode()).hexdigest()[:24]


def answer_subject(tenant: str, key: str, documents: Iterable[str]) -> str:
    """Return the subject of an answer; `documents` are their tokens."""
    return _PREFIX + ".".join([tenant, key, *sorted(set(documents))])


def rests_on(subject: str) -> tuple[str, frozenset[str]]:
    """Return the tenant of an answer and the tokens of its documents."""
    tenant, _key, *documents = subject.removeprefix(_PREFIX).split(".")
    return tenant, frozenset(documents)
