"""What a check of the files alone finds."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import checkpoints
from audit.checkpoints import CheckpointFile
from audit.ledger import Ledger
from audit.proving import Prover
from audit.segments import list_segments
from audit.trust import load_signer, witness_keys_file
from audit.verification import Verification, verify
from chassis.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from tlog.notes import COSIGNATURE, Checkpoint, Signer, open_checkpoint, parse_note
from tlog.tiles import TILES, tile_path

from .conftest import new_ledger, received

WITNESS = Signer("witness/w", Ed25519PrivateKey.from_private_bytes(bytes(32)), COSIGNATURE)
COUNT = 300


def _cosign(folder: Path) -> None:
    """Keep the newest checkpoint with a witness's signature, as the service does."""
    entry = checkpoints.last(folder / checkpoints.SIGNED)
    assert entry is not None
    file = CheckpointFile(folder / checkpoints.COSIGNED)
    file.append(entry.size, entry.note + WITNESS.line(parse_note(entry.note).text, timestamp=1_700_000_000))
    file.close()
    witness_keys_file(folder.parent).write_text(json.dumps({"http://w": str(WITNESS.verifier)}))


def _write(folder: Path, count: int, **options: object) -> None:
    ledger = new_ledger(folder.parent, **{"segment_bytes": 40_000, **options})
    for first in range(1, count + 1, 20):
        ledger.append([received(n, producer="router/a", producer_sequence=n) for n in range(first, min(first + 20, count + 1))])
        if first % 100 == 1:
            _cosign(folder)
    _cosign(folder)
    ledger.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cosigned log of 300 records in several files with several tiles."""
    folder = tmp_path_factory.mktemp("written") / "state" / "audit"
    _write(folder, COUNT)
    assert len(list_segments(folder)) > 2
    return folder


@pytest.fixture
def log(written: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    shutil.copytree(written.parent, tmp_path / "state")
    return tmp_path / "state" / "audit"


def _change(path: Path, change: Callable[[list[bytes]], None]) -> None:
    found = path.read_bytes().splitlines(keepends=True)
    change(found)
    path.write_bytes(b"".join(found))


def _altered(found: Verification) -> int:
    assert not found.intact
    return found.first_bad_index


def test_an_untouched_log_is_intact(log: Path) -> None:
    """Size, root and witness are those of the last checkpoint."""
    found = verify(log)

    assert found.intact, found.problem
    assert (found.size, found.cosigned, found.witnesses, found.gaps) == (COUNT, COUNT, ("witness/w",), ())
    entry = checkpoints.last(log / checkpoints.SIGNED)
    assert entry is not None
    assert open_checkpoint(entry.note, load_signer(log.parent).verifier)[0].root.hex() == found.head


def _record_at(folder: Path, segment: Path, position: int) -> int:
    return int(segment.stem) + segment.read_bytes()[:position].count(b"\n")


def test_every_changed_byte_of_a_record_is_found_and_named(log: Path) -> None:
    """Whatever byte of a record is changed, its newline too, the first bad record is the one that holds it."""
    rng = random.Random(7)
    for _ in range(60):
        segment = rng.choice(list_segments(log))
        whole = segment.read_bytes()
        position = rng.choice([rng.randrange(len(whole)), whole.index(b"\n", rng.randrange(len(whole) - 1))])
        holder = _record_at(log, segment, position)
        changed = bytearray(whole)
        changed[position] ^= rng.randrange(1, 256)
        segment.write_bytes(changed)

        found = verify(log)

        assert _altered(found) == holder, (segment.name, position, found)
        assert segment.name in found.problem or f"record {holder}" in found.problem
        segment.write_bytes(whole)


@pytest.mark.parametrize(
    "name", [checkpoints.SIGNED, checkpoints.COSIGNED, checkpoints.PUBLISHED, tile_path(0, 0), tile_path(0, 1, 44), tile_path(1, 0, 1)]
)
def test_every_changed_byte_of_the_other_files_is_found_and_named(log: Path, name: str) -> None:
    """No checkpoint, cosignature or tile can be edited, added to or shortened; the file is named, and with it the line or tile."""
    path = log / name
    whole, rng = path.read_bytes(), random.Random(11)
    positions = {0, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(14))}
    for position in positions:
        changed = bytearray(whole)
        changed[position] ^= rng.choice([1, 2, 32, 128, rng.randrange(1, 256)])
        path.write_bytes(changed)

        found = verify(log)

        assert not found.intact, (name, position)
        assert name in found.problem, found.problem
    path.write_bytes(whole[:-1] if TILES in name else whole + b"x\n")
    assert not verify(log).intact


def test_a_deleted_record_is_found(log: Path) -> None:
    """The gap is named by the record that is missing."""
    _change(list_segments(log)[0], lambda found: found.pop(5))

    assert _altered(verify(log)) == 5


def test_swapped_records_are_found(log: Path) -> None:
    """The order is part of the tree."""

    def swap(found: list[bytes]) -> None:
        found[3], found[9] = found[9], found[3]

    _change(list_segments(log)[0], swap)

    assert _altered(verify(log)) == 3


def test_an_inserted_copy_is_found(log: Path) -> None:
    """A record cannot be there twice."""
    _change(list_segments(log)[0], lambda found: found.insert(4, found[3]))

    assert _altered(verify(log)) == 4


@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_deleted_file_is_found(log: Path, which: int) -> None:
    """No file of the log can go, be it the first, one in between or the last."""
    lost = list_segments(log)[which]
    first = int(lost.stem)
    lost.unlink()

    assert _altered(verify(log)) == first


@pytest.mark.parametrize("cut", [1, 10, 400, 5_000, 50_000])
def test_a_cut_tail_is_found(log: Path, cut: int) -> None:
    """The checkpoints know how long the log was, however much of the end is gone."""
    remaining = cut
    for segment in reversed(list_segments(log)):
        size = segment.stat().st_size
        if remaining >= size:
            segment.unlink()
            remaining -= size
        else:
            segment.write_bytes(segment.read_bytes()[: size - remaining])
            break

    found = verify(log)

    assert _altered(found) == found.size < COUNT


def test_a_tail_cut_together_with_its_checkpoints_is_found_by_the_witness(log: Path) -> None:
    """Who also drops the later checkpoints still contradicts what the witness has signed, and the log's published one."""
    last = list_segments(log)[-1]
    keep = int(last.stem)
    last.unlink()
    _change(log / checkpoints.SIGNED, lambda found: found.__delitem__(slice(keep // 20 - 2, None)))

    found = verify(log)

    assert _altered(found) == keep
    assert "cut off" in found.problem


def _forged(log: Path, tmp_path: Path, *, count: int, same_until: int = 0, key: bool = True) -> Path:
    """Write another past under the installation's stolen key, or under another key."""
    forged = tmp_path / "forged" / "audit"
    if key:
        (forged.parent / "credentials" / "audit").mkdir(parents=True)
        for name in ("audit_log.vkey", "audit/log.pem", "audit/master.key", "audit_witnesses.json"):
            shutil.copy(log.parent / "credentials" / name, forged.parent / "credentials" / name)
    ledger = new_ledger(forged.parent, segment_bytes=40_000)
    for first in range(1, count + 1, 20):
        ledger.append([received(n, tenant="acme" if n <= same_until else "forged") for n in range(first, first + 20)])
    ledger.close()
    return forged


def test_a_log_rewritten_with_the_stolen_key_is_found_by_the_cosignatures(log: Path, tmp_path: Path) -> None:
    """Every record, tile and checkpoint is made anew with the right key; what the witness signed earlier does not fit."""
    forged = _forged(log, tmp_path, count=COUNT)
    assert verify(forged).problem == f"{checkpoints.COSIGNED}: no witness has cosigned, although witnesses are known"
    shutil.copy(log / checkpoints.COSIGNED, forged / checkpoints.COSIGNED)

    found = verify(forged)

    assert _altered(found) == 0
    assert checkpoints.COSIGNED in found.problem


def test_a_log_rewritten_with_the_stolen_key_is_found_by_whoever_kept_a_checkpoint(log: Path, tmp_path: Path) -> None:
    """With the cosignatures dropped too, one checkpoint kept elsewhere is enough."""
    original = verify(log)
    forged = _forged(log, tmp_path, count=COUNT)
    (forged.parent / "credentials" / "audit_witnesses.json").unlink()
    assert verify(forged).intact

    found = verify(forged, claims=[Checkpoint("", COUNT, bytes.fromhex(original.head))])

    assert not found.intact
    assert "kept elsewhere" in found.problem


def test_a_fork_is_found(log: Path) -> None:
    """A log that goes on from an earlier state in another way contradicts the later cosignatures, at the record where it forks."""
    fork = log.parent.parent / "fork"
    shutil.copytree(log.parent, fork)
    segment = list_segments(fork / "audit")[1]
    begin = int(segment.stem)
    for later in list_segments(fork / "audit")[1:]:
        later.unlink()
    sizes = [entry.size for entry in checkpoints.read(fork / "audit" / checkpoints.SIGNED, 10**9)]
    kept = sum(1 for size in sizes if size <= begin)
    _change(fork / "audit" / checkpoints.SIGNED, lambda found: found.__delitem__(slice(kept, None)))
    for name in (checkpoints.PUBLISHED, checkpoints.COSIGNED):
        (fork / "audit" / name).unlink()
    shutil.rmtree(fork / "audit" / TILES)
    (fork / "audit_run" / "view.db").unlink()
    ledger = new_ledger(fork, segment_bytes=40_000)
    size = ledger.size
    ledger.append([received(n, tenant="other") for n in range(1_001, 1_200)])
    ledger.close()
    shutil.copy(log / checkpoints.COSIGNED, fork / "audit" / checkpoints.COSIGNED)

    found = verify(fork / "audit")

    assert not found.intact
    assert size - 120 < _altered(found) <= size
    assert checkpoints.COSIGNED in found.problem


def test_another_key_is_not_the_log_s(log: Path, tmp_path: Path) -> None:
    """Who recomputes everything under a key of his own has not signed for this log."""
    forged = _forged(log, tmp_path, count=40, key=False)
    shutil.copy(log.parent / "credentials" / "audit_log.vkey", forged.parent / "credentials" / "audit_log.vkey")

    found = verify(forged)

    assert not found.intact
    assert checkpoints.SIGNED in found.problem or checkpoints.PUBLISHED in found.problem


def test_records_beyond_the_checkpoint_do_not_break_it(log: Path) -> None:
    """A check beside a running writer may see more than was signed, and half of the last line."""
    with list_segments(log)[-1].open("ab") as file:
        file.write(list_segments(log)[-1].read_bytes().splitlines(keepends=True)[0] + b'{"attempt":')
    with (log / checkpoints.SIGNED).open("ab") as file:
        file.write(b'{"note":"strata/')

    found = verify(log)

    assert found.intact, found.problem
    assert found.size == COUNT


def test_a_check_beside_a_running_writer_is_never_mistaken(folder: Path, open_ledger: Callable[..., Ledger]) -> None:
    """While groups are written, files begun and tiles replaced, every check and every proof finds a whole log."""
    ledger, stop = open_ledger(segment_bytes=6_000), Event()

    def write() -> None:
        sequence = 0
        while not stop.is_set():
            ledger.append([received(sequence + n) for n in range(1, 8)])
            sequence += 7
            ledger.publish()

    writer = Thread(target=write)
    writer.start()
    try:
        while ledger.size < 300:
            found = verify(folder)
            assert found.intact, found.problem
            if found.size:
                Prover(folder).prove(str(found.size - 1))
    finally:
        stop.set()
        writer.join()


def test_an_outsider_needs_the_folder_and_the_public_keys_only(log: Path, tmp_path: Path) -> None:
    """A copy of the log elsewhere is checked with keys given as text, and with other keys it is not believed."""
    copy = shutil.copytree(log, tmp_path / "elsewhere" / "copy")
    key = (log.parent / "credentials" / "audit_log.vkey").read_text().strip()
    other = str(Signer(key.split("+")[0], Ed25519PrivateKey.generate()).verifier)

    found = verify(copy, keys=[key], witness_keys=[str(WITNESS.verifier)])

    assert (found.intact, found.cosigned) == (True, COUNT)
    assert not verify(copy, keys=[other]).intact
    assert not verify(copy, keys=[key], witness_keys=[other]).intact
    with pytest.raises(FailedPreconditionError, match="public keys"):
        verify(copy)
    with pytest.raises(InvalidArgumentError):
        verify(copy, keys=["nonsense"])


def test_no_log_is_not_an_intact_log(log: Path, tmp_path: Path) -> None:
    """A folder that never was one is said to be none; one that was emptied, while somebody remembers a checkpoint, was altered."""
    with pytest.raises(NotFoundError, match="no log at"):
        verify(tmp_path / "nowhere")
    note = (log / checkpoints.PUBLISHED).read_text()
    shutil.rmtree(log)

    found = verify(log, kept=[note])

    assert (found.intact, found.first_bad_index) == (False, 0)


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _without_its_end(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (checkpoints.SIGNED, Path.unlink),
        (checkpoints.SIGNED, _emptied),
        (checkpoints.SIGNED, _without_its_end),
        (checkpoints.COSIGNED, Path.unlink),
        (checkpoints.PUBLISHED, Path.unlink),
    ],
)
def test_checkpoints_that_are_missing_are_found_and_named(log: Path, name: str, change: Callable[[Path], None]) -> None:
    """The other files still fit each other and the records, and say that there was more."""
    change(log / name)

    found = verify(log)

    assert not found.intact
    assert found.problem.startswith((f"{name}: ", f"{log}: {name} "))


def test_what_no_checkpoint_covers_is_told_and_must_be_records(log: Path) -> None:
    """A line that somebody added at the end is counted, and one that no writer writes is an alteration at its place."""
    segment = list_segments(log)[-1]
    line = segment.read_bytes().splitlines(keepends=True)[0]
    with segment.open("ab") as file:
        file.write(line)
    found = verify(log)
    assert (found.intact, found.size, found.unsigned) == (True, COUNT, 1)
    for added in (b"x\n", b"x", line[1:]):
        content = segment.read_bytes()
        with segment.open("ab") as file:
            file.write(added)
        assert _altered(verify(log)) == COUNT + 1
        segment.write_bytes(content)
