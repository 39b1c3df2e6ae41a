"""The keys of what is sealed: one per tenant, subject, class and month, wrapped by the tenant's, wrapped by the installation's."""

import base64
import hmac
import os
import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chassis.errors import FailedPreconditionError

_KEY_BYTES = 32
_NONCE_BYTES = 12
_ID_BYTES = 10
_CACHED = 20_000
DEFAULT_CLASS = "default"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS tenant_keys (tenant TEXT PRIMARY KEY, wrapped BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS data_keys (
  id TEXT PRIMARY KEY, tenant TEXT NOT NULL, subject BLOB, class TEXT NOT NULL, period TEXT NOT NULL, wrapped BLOB, erased_at TEXT
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS data_keys_subject ON data_keys (tenant, subject, class, period) WHERE subject IS NOT NULL;
CREATE TABLE IF NOT EXISTS holds (
  tenant TEXT, subject BLOB, reason TEXT NOT NULL, set_by TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (tenant, subject)
) WITHOUT ROWID;
"""


class KeyStoreError(OSError):
    """The store of keys does not work now; nothing can be sealed, so nothing is written."""


@dataclass(frozen=True, slots=True)
class DataKey:
    """A key that seals, and the identifier under which leaves name it."""

    id: str
    secret: bytes = field(repr=False)


def load_master_key(path: Path) -> bytes:
    """Return the installation's key; raise KeyStoreError when it is not there."""
    try:
        return base64.urlsafe_b64decode(path.read_bytes())
    except (OSError, ValueError) as error:
        raise KeyStoreError(f"the master key of the audit log cannot be read: {error}") from error


class KeyVault:
    """The store of keys; used from one thread at a time or several."""

    def __init__(self, path: Path, master: bytes) -> None:
        """Touch nothing before the first use."""
        self._path, self._master = path, AESGCM(master)
        self._lock = RLock()
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._tenants: dict[str, bytes] = {}
        self._cache: OrderedDict[tuple[str, str, str, str], DataKey] = OrderedDict()

    @property
    def exists(self) -> bool:
        """Whether there is a store already; a log without one cannot be read."""
        return self._path.exists()

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """Give the connection inside of a transaction; raise KeyStoreError when it fails, and begin anew the next time."""
        with self._lock:
            try:
                with self._opened() as connection:
                    yield connection
            except (sqlite3.Error, OSError, InvalidTag) as error:
                self._cache.clear()
                self._tenants.clear()
                self.close()
                raise KeyStoreError(f"the store of the audit log's keys does not work: {error!r}") from error

    def _opened(self) -> sqlite3.Connection:
        # A store that was there must be there: a connection works on after its file was taken away, and new keys would go with it.
        inode = self._path.stat().st_ino if self._inode else 0
        if self._connection is None:
            self._connection = _connect(self._path)
            inode = self._inode = self._path.stat().st_ino
        if inode != self._inode:
            raise OSError(f"{self._path} is another file now")
        return self._connection

    def seal_keys(self, wanted: list[tuple[str, str, str, str]]) -> list[DataKey]:
        """Return the key of each (tenant, subject, class, period); new ones are on the disk before this returns."""
        with self._lock:
            if any(name not in self._cache for name in wanted):
                with self._database() as database:
                    for name in dict.fromkeys(name for name in wanted if name not in self._cache):
                        self._cache[name] = self._find_or_make(database, *name)
            found = [self._cache[name] for name in wanted]
            while len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
            return found

    def _find_or_make(self, database: sqlite3.Connection, tenant: str, subject: str, retention: str, period: str) -> DataKey:
        key = self._tenant_key(database, tenant)
        hashed = _hashed(key, subject)
        row = database.execute(
            "SELECT id, wrapped FROM data_keys WHERE tenant = ? AND subject = ? AND class = ? AND period = ?",
            (tenant, hashed, retention, period),
        ).fetchone()
        if row is not None:
            return DataKey(row[0], _unwrap(AESGCM(key), row[1], row[0]))
        identifier, fresh = os.urandom(_ID_BYTES).hex(), AESGCM.generate_key(_KEY_BYTES * 8)
        database.execute(
            "INSERT INTO data_keys (id, tenant, subject, class, period, wrapped) VALUES (?, ?, ?, ?, ?, ?)",
            (identifier, tenant, hashed, retention, period, _wrap(AESGCM(key), fresh, identifier)),
        )
        return DataKey(identifier, fresh)

    def _tenant_key(self, database: sqlite3.Connection, tenant: str) -> bytes:
        if tenant not in self._tenants:
            row = database.execute("SELECT wrapped FROM tenant_keys WHERE tenant = ?", (tenant,)).fetchone()
            if row is None:
                fresh = AESGCM.generate_key(_KEY_BYTES * 8)
                database.execute("INSERT INTO tenant_keys VALUES (?, ?)", (tenant, _wrap(self._master, fresh, tenant)))
                self._tenants[tenant] = fresh
            else:
                self._tenants[tenant] = _unwrap(self._master, row[0], tenant)
        return self._tenants[tenant]

    def open_keys(self, identifiers: set[str]) -> dict[str, bytes]:
        """Return the keys with these identifiers; those that were erased are left out."""
        found = {}
        with self._database() as database:
            for identifier in identifiers:
                row = database.execute("SELECT tenant, wrapped FROM data_keys WHERE id = ?", (identifier,)).fetchone()
                if row is not None and row[1] is not None:
                    found[identifier] = _unwrap(AESGCM(self._tenant_key(database, row[0])), row[1], identifier)
        return found

    def erase(self, tenant: str, subject: str) -> int:
        """Destroy all keys of a subject and return how many; raise FailedPreconditionError while it is on legal hold."""
        with self._database() as database:
            hashed = _hashed(self._tenant_key(database, tenant), subject)
            self._refuse_held(database, tenant, hashed)
            count = _destroy(database, "tenant = ? AND subject = ?", (tenant, hashed))
        self._forget_erased()
        return count

    def refuse_held(self, tenant: str, subject: str) -> None:
        """Raise FailedPreconditionError while a subject is on legal hold."""
        with self._database() as database:
            self._refuse_held(database, tenant, _hashed(self._tenant_key(database, tenant), subject))

    def _refuse_held(self, database: sqlite3.Connection, tenant: str, hashed: bytes) -> None:
        row = database.execute("SELECT 1 FROM holds WHERE tenant = ? AND subject IN (?, x'')", (tenant, hashed)).fetchone()
        if row is not None:
            # Not whose, nor why: what is refused is logged.
            raise FailedPreconditionError("a legal hold keeps these records; lift it first", code="legal_hold")

    def expire(self, retention: str, before_period: str, *, keep: Iterable[str] = ()) -> int:
        """Destroy the keys of a retention class of months (YYYY-MM) before `before_period` that are not held; return how many.

        `keep` names further keys that stay, such as those of a held user's requests.
        """
        held = "NOT EXISTS (SELECT 1 FROM holds h WHERE h.tenant = data_keys.tenant AND h.subject IN (data_keys.subject, x''))"
        with self._database() as database:
            database.execute("CREATE TEMP TABLE IF NOT EXISTS kept (id TEXT PRIMARY KEY)")
            database.execute("DELETE FROM kept")
            database.executemany("INSERT OR IGNORE INTO kept VALUES (?)", ((identifier,) for identifier in keep))
            condition = f"class = ? AND period < ? AND {held} AND id NOT IN (SELECT id FROM kept)"  # noqa: S608 - our own words
            count = _destroy(database, condition, (retention, before_period))
        self._forget_erased()
        return count

    def hold(self, tenant: str, subject: str, *, reason: str, set_by: str) -> None:
        """Keep a subject's keys from erasure and expiry; an empty subject holds the whole tenant."""
        with self._database() as database:
            hashed = _hashed(self._tenant_key(database, tenant), subject) if subject else b""
            row = (tenant, hashed, reason, set_by, datetime.now(UTC).isoformat())
            database.execute("INSERT OR REPLACE INTO holds VALUES (?, ?, ?, ?, ?)", row)

    def lift_hold(self, tenant: str, subject: str) -> bool:
        """Let a subject's keys be erased again; return whether they were held."""
        with self._database() as database:
            hashed = _hashed(self._tenant_key(database, tenant), subject) if subject else b""
            return database.execute("DELETE FROM holds WHERE tenant = ? AND subject = ?", (tenant, hashed)).rowcount > 0

    def holds(self, tenant: str = "") -> list[tuple[str, str, str, str, str]]:
        """Return tenant, subject's token, reason, who and when of each hold, of one tenant or of all; no token holds the whole tenant."""
        with self._database() as database:
            rows = database.execute(
                "SELECT tenant, hex(subject), reason, set_by, at FROM holds WHERE ? IN ('', tenant)", (tenant,)
            ).fetchall()
        return [(row[0], row[1].lower(), *row[2:]) for row in rows]

    def token(self, tenant: str, subject: str) -> str:
        """Return the name under which lookups find a subject; nobody without the tenant's key can guess whose it is."""
        with self._lock:
            key = self._tenants.get(tenant)
            if key is None:
                with self._database() as database:
                    key = self._tenant_key(database, tenant)
            return _hashed(key, subject).hex()

    def erased_since(self, moment: str) -> list[str]:
        """Return the identifiers of the keys that were destroyed at or after a moment (UTC, ISO 8601)."""
        with self._database() as database:
            return [row[0] for row in database.execute("SELECT id FROM data_keys WHERE erased_at >= ?", (moment,))]

    def _forget_erased(self) -> None:
        """Leave no copy of a destroyed key behind, in memory or in the write-ahead log."""
        with self._lock:
            self._cache.clear()
            if self._connection is not None:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def _destroy(database: sqlite3.Connection, condition: str, values: tuple[object, ...]) -> int:
    now = datetime.now(UTC).isoformat()
    statement = f"UPDATE data_keys SET wrapped = NULL, subject = NULL, erased_at = ? WHERE wrapped IS NOT NULL AND {condition}"  # noqa: S608 - the conditions are ours
    return database.execute(statement, (now, *values)).rowcount


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    connection = sqlite3.connect(path, timeout=2.0, check_same_thread=False)
    path.chmod(0o600)
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
        connection.execute(f"PRAGMA {pragma}")
    connection.executescript(_SCHEMA)
    return connection


def _hashed(tenant_key: bytes, subject: str) -> bytes:
    """Return the name under which a subject is found; nobody without the tenant's key can guess whose it is."""
    return hmac.digest(tenant_key, b"subject\n" + subject.encode(), "sha256")


def _wrap(cipher: AESGCM, key: bytes, name: str) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, key, name.encode())


def _unwrap(cipher: AESGCM, wrapped: bytes, name: str) -> bytes:
    return cipher.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], name.encode())
