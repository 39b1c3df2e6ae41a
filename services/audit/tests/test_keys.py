"""What is sealed, who can open it, and what is left when a key is destroyed."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from audit.keys import KeyStoreError, KeyVault
from audit.ledger import Ledger
from audit.segments import list_segments
from audit.verification import verify
from chassis.errors import FailedPreconditionError

from .conftest import received

Open = Callable[..., Ledger]
SECRET = "Erika Mustermann"


def _everything(state: Path) -> bytes:
    return b"".join(path.read_bytes() for path in state.rglob("*") if path.is_file())


def test_personal_data_is_nowhere_in_the_clear(folder: Path, open_ledger: Open) -> None:
    """Neither the details nor the user of a record can be read from any file of the installation."""
    ledger = open_ledger()
    ledger.append([received(1, user=SECRET, details={"text": SECRET})])
    ledger.close()

    assert SECRET.encode() not in _everything(folder.parent)
    assert open_ledger().read("r1")[0].record["details"] == {"text": SECRET}


def test_erasure_destroys_the_key_and_keeps_the_proofs(folder: Path, open_ledger: Open) -> None:
    """After a subject is erased its records are shown without what was sealed, others are whole, and the log still verifies."""
    ledger = open_ledger()
    ledger.append([received(1, user="erika")])
    with closing(sqlite3.connect(ledger.vault._path)) as store:
        ((wrapped,),) = store.execute("SELECT wrapped FROM data_keys")
    ledger.append([received(2, user="max", request="r2")])

    assert ledger.vault.erase("acme", "user/erika") == 1
    ledger.append([received(3, user="erika", request="r3")])

    assert [(found.erased, "details" in found.record) for found in ledger.read("r1")] == [(True, False)]
    assert [found.erased for found in (*ledger.read("r2"), *ledger.read("r3"))] == [False, False]
    assert verify(folder).intact
    ledger.close()
    assert wrapped not in b"".join(path.read_bytes() for path in (folder.parent / "credentials").rglob("keys.db*"))


def test_the_view_is_rebuilt_without_what_was_erased(folder: Path, open_ledger: Open) -> None:
    """An erased record is found by its identifiers, and its repeat is still known for one."""
    ledger = open_ledger()
    ledger.append([received(1, user="erika"), received(2)])
    ledger.vault.erase("acme", "user/erika")
    ledger.close()
    (folder.parent / "audit_run" / "view.db").unlink()

    ledger = open_ledger()

    assert [found.erased for found in ledger.read("r1")] == [True, False]
    assert ledger.append([received(1, user="erika")]) == 0


def test_a_legal_hold_keeps_keys(open_ledger: Open) -> None:
    """What is on hold is neither erased nor expired, be it a subject or a whole tenant, until the hold is lifted."""
    ledger = open_ledger()
    ledger.append([received(1, user="erika"), received(2, user="max")])
    vault = ledger.vault
    vault.hold("acme", "user/erika", reason="case 7", set_by="counsel")

    with pytest.raises(FailedPreconditionError, match="legal hold"):
        vault.erase("acme", "user/erika")
    assert vault.expire("default", "2026-12") == 1, "max was not held"
    assert vault.lift_hold("acme", "user/erika")
    vault.hold("acme", "", reason="case 8", set_by="counsel")
    assert vault.expire("default", "2026-12") == 0
    assert vault.lift_hold("acme", "")
    assert vault.erase("acme", "user/erika") == 1


def test_retention_ends_in_erasure_by_class_and_month(open_ledger: Open) -> None:
    """A class's keys go when their month is over for long enough; other classes and later months stay."""
    ledger = open_ledger(retention={"tool": 30})
    ledger.append([received(1, step="tool", request="r1"), received(2, request="r2")])

    assert ledger.vault.expire("tool", "2026-11") == 0
    assert ledger.vault.expire("tool", "2026-12") == 1
    assert ledger.read("r1")[0].erased
    assert not ledger.read("r2")[0].erased


def test_another_master_key_opens_nothing(folder: Path, open_ledger: Open) -> None:
    """The store alone, without the installation's key, is of no use."""
    ledger = open_ledger()
    ledger.append([received(1)])

    with pytest.raises(KeyStoreError):
        KeyVault(ledger.vault._path, bytes(32)).seal_keys([("acme", "x", "default", "2026-11")])


def test_a_store_that_is_locked_or_gone_refuses_records(folder: Path, open_ledger: Open, tmp_path: Path) -> None:
    """Nothing is written that could not be opened again; when the store is back, writing goes on."""
    ledger = open_ledger()
    ledger.append([received(1)])
    before, path = list_segments(folder)[0].read_bytes(), ledger.vault._path
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(KeyStoreError, match="locked"):
            ledger.append([received(2, request="r2")])
    assert ledger.append([received(2, request="r2")]) == 1
    moved = path.rename(tmp_path / "keys.db")
    for _ in range(2):
        with pytest.raises(KeyStoreError):
            ledger.append([received(3, request="r3")])
    moved.rename(path)

    assert ledger.append([received(3, request="r3")]) == 1
    assert [found.erased for name in ("r1", "r2", "r3") for found in ledger.read(name)] == [False] * 3
    assert list_segments(folder)[0].read_bytes().startswith(before)


def test_a_log_without_its_keys_is_not_opened(folder: Path, open_ledger: Open) -> None:
    """A start does not make new keys beside records whose keys are missing."""
    ledger = open_ledger()
    ledger.append([received(1)])
    ledger.close()
    ledger.vault._path.unlink()

    with pytest.raises(FailedPreconditionError, match="restore it"):
        open_ledger()
