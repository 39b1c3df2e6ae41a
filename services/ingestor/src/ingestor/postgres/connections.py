"""Connections to PostgreSQL, and its errors as ours, each naming what to do."""

import asyncio
import re
from collections.abc import Callable
from typing import TypeVar

import psycopg2
import psycopg2.extensions
import psycopg2.extras
from psycopg2 import errorcodes

from chassis.errors import FailedPreconditionError, ServiceError, UnavailableError
from ingestor.postgres.declaration import ReplicationDeclaration

Connection = psycopg2.extensions.connection
T = TypeVar("T")

# A peer that is gone without a word is noticed within half a minute.
_TCP = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
# The text of a value must not depend on how server, database or role are configured.
_FORMATS = {
    "datestyle": "ISO",
    "intervalstyle": "iso_8601",
    "timezone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "idle_in_transaction_session_timeout": "0",
    "lock_timeout": "0",
}
_HOPELESS = {
    r"password authentication failed|no password supplied": ("source_authentication_failed", "correct user and password in the DSN"),
    r"no pg_hba\.conf entry": ("source_authentication_failed", "let this host in by a line in pg_hba.conf"),
    r'role ".*" does not exist': ("source_authentication_failed", "create the role, or name another in the DSN"),
    r'database ".*" does not exist': ("source_database_missing", "name an existing database in the DSN"),
    r"superuser or replication role|permission denied to start WAL sender": (
        "replication_permission_missing",
        "ALTER ROLE ... REPLICATION",
    ),
}
_LOST_SLOT = re.compile(r"can no longer (?:get changes|access replication slot)|has been invalidated|invalidated because")


class LostSlotError(Exception):
    """The slot does not exist, or no longer holds what comes next."""


def connect(declaration: ReplicationDeclaration, *, replication: bool = False, statement_seconds: float = 30.0) -> Connection:
    """Connect in autocommit; raise a ServiceError that never quotes the connection string."""
    text = declaration.connection_string()
    try:
        parsed = psycopg2.extensions.parse_dsn(text)
    except psycopg2.Error:
        message = f"source {declaration.name!r}: the connection string is malformed; write `host=... dbname=... user=...` or a URL"
        # The cause would quote it, password included.
        raise FailedPreconditionError(message, code="source_dsn_invalid") from None
    timeout = 0 if replication else int(statement_seconds * 1000)
    options = " ".join(f"-c {name}={value}" for name, value in {**_FORMATS, "statement_timeout": timeout}.items())
    parameters = {**_TCP, "connect_timeout": 10, **parsed, "client_encoding": "UTF8", "application_name": "strata"}
    parameters["options"] = f"{parsed.get('options', '')} {options}".strip()
    factory = psycopg2.extras.LogicalReplicationConnection if replication else None
    try:
        connection: Connection = psycopg2.connect(connection_factory=factory, **parameters)
    except psycopg2.Error as error:
        raise translated(error, declaration, "cannot connect") from error
    if not replication:
        connection.autocommit = True
    return connection


def translated(error: psycopg2.Error, declaration: ReplicationDeclaration, what: str) -> ServiceError:
    """Return the error of ours for one of PostgreSQL's."""
    text = " ".join(str(error).split())
    where = f"source {declaration.name!r}: {what}: {text}"
    for pattern, (code, remedy) in _HOPELESS.items():
        if re.search(pattern, text):
            return FailedPreconditionError(f"{where}; {remedy}", code=code)
    if error.pgcode == errorcodes.INSUFFICIENT_PRIVILEGE:
        return FailedPreconditionError(f"{where}; grant the right to the role of the DSN", code="source_permission_missing")
    if error.pgcode == errorcodes.CONFIGURATION_LIMIT_EXCEEDED:
        remedy = "raise max_replication_slots (a snapshot needs one slot more for as long as it lasts)"
        return FailedPreconditionError(f"{where}; {remedy}", code="replication_slots_exhausted")
    if error.pgcode in {errorcodes.OBJECT_IN_USE, errorcodes.DUPLICATE_OBJECT}:
        return UnavailableError(f"{where}; another process uses the slot", code="replication_slot_in_use")
    return UnavailableError(where, code="source_unavailable")


def is_lost_slot(error: psycopg2.Error) -> bool:
    """Return whether an error says that a slot is gone, or lost the log that it needs."""
    # A publication that was made anew does not exist where the slot reads, and never will.
    if error.pgcode == errorcodes.UNDEFINED_OBJECT and ("replication slot" in str(error) or "publication" in str(error)):
        return True
    return error.pgcode == errorcodes.OBJECT_NOT_IN_PREREQUISITE_STATE and bool(_LOST_SLOT.search(str(error)))


async def in_thread(call: Callable[[], T], *, interrupt: Callable[[], None]) -> T:
    """Run a blocking call in a thread; when cancelled, `interrupt` it and leave only once it has ended."""
    running = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            await asyncio.to_thread(interrupt)
            await asyncio.wait([running], timeout=0.5)
        if not running.cancelled():
            running.exception()
        raise
