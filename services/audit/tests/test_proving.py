"""Proofs as outsiders check them: with hashing and signatures written here from the specifications, and with pymerkle."""

import base64
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pymerkle
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from audit import checkpoints
from audit.proving import Prover
from audit.segments import lines, list_segments
from chassis.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError

from .test_verification import COUNT, _write


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cosigned log of 300 records."""
    folder = tmp_path_factory.mktemp("proving") / "state" / "audit"
    _write(folder, COUNT)
    return folder


def _check_note(note: str, vkey: str, *, cosignature: bool = False) -> tuple[str, int, bytes]:
    """Return origin, size and root of a note that the key signed; raises InvalidSignature or an assertion otherwise."""
    name, key_id, encoded = vkey.split("+", 2)
    raw = base64.b64decode(encoded)
    assert raw[0] == (4 if cosignature else 1)
    assert hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4].hex() == key_id
    text, _, signatures = note.rpartition("\n\n")
    text += "\n"
    for line in signatures.splitlines():
        dash, signer, blob = line.split(" ")
        content = base64.b64decode(blob)
        if (dash, signer, content[:4].hex()) == ("\u2014", name, key_id):
            message, signature = text.encode(), content[4:]
            if cosignature:
                timestamp = int.from_bytes(signature[:8], "big")
                message, signature = f"cosignature/v1\ntime {timestamp}\n".encode() + message, signature[8:]
            Ed25519PublicKey.from_public_bytes(raw[1:]).verify(signature, message)
            origin, size, root = text.splitlines()[:3]
            return origin, int(size), base64.b64decode(root)
    raise InvalidSignature(f"{name} has not signed")


def _fold(leaf: bytes, index: int, size: int, proof: list[bytes]) -> bytes:
    """Return the root that an audit path leads to, by the recursion of RFC 6962, section 2.1.1."""
    if size == 1:
        assert not proof
        return leaf
    split = 1
    while split * 2 < size:
        split *= 2
    *rest, last = proof
    if index < split:
        return hashlib.sha256(b"\x01" + _fold(leaf, index, split, rest) + last).digest()
    return hashlib.sha256(b"\x01" + last + _fold(leaf, index - split, size - split, rest)).digest()


@pytest.mark.parametrize("index", [0, 1, 127, 255, 256, COUNT - 1])
def test_an_outsider_accepts_the_proof_of_a_record(log: Path, index: int) -> None:
    """Signature, cosignature, leaf and audit path hold under a verifier that shares nothing with ours."""
    found = Prover(log).prove(f"r1/{index + 1}")
    origin, size, root = _check_note(found["checkpoint"], found["verifier_key"])
    leaf = base64.b64decode(found["leaf"])

    assert origin.startswith("strata/")
    assert json.loads(leaf)["record_id"] == f"r1/{index + 1}"
    assert (found["index"], found["size"]) == (index, size) == (index, COUNT)
    assert _fold(hashlib.sha256(b"\x00" + leaf).digest(), index, size, [base64.b64decode(part) for part in found["proof"]]) == root
    assert [_check_note(found["checkpoint"], key, cosignature=True)[1] for key in found["witness_keys"]] == [COUNT]


def test_pymerkle_has_the_same_tree(log: Path) -> None:
    """Another implementation, given the leaves, computes the roots of all checkpoints that were ever signed."""
    tree = pymerkle.InmemoryTree()
    for line in lines(log):
        tree.append_entry(line.leaf)

    for entry in checkpoints.read(log / checkpoints.SIGNED, 10**9):
        _, size, root = _check_note(entry.note, Prover(log).prove("0")["verifier_key"])
        assert root == tree.get_state(size)


@pytest.mark.parametrize(("old", "new"), [(0, 300), (20, 300), (100, 120), (120, 120), (37, 290)])
def test_an_outsider_accepts_that_the_log_only_grew(log: Path, old: int, new: int) -> None:
    """Both checkpoints are signed, and both roots follow from the proof by the recursion of RFC 6962; any two sizes can be asked for."""
    found = Prover(log).consistency(old, new)
    _, old_size, old_root = _check_note(found["old_checkpoint"], found["verifier_key"])
    _, new_size, new_root = _check_note(found["new_checkpoint"], found["verifier_key"])
    proof = [base64.b64decode(part) for part in found["proof"]]

    assert (old_size, new_size) == (old, new)
    if 0 < old < new:
        assert _roots(old, new, proof, old_root, whole=True) == (old_root, new_root)
    else:
        assert proof == []


def _roots(old: int, new: int, proof: list[bytes], old_root: bytes, *, whole: bool) -> tuple[bytes, bytes]:
    """Return both roots that a consistency proof leads to, inverting SUBPROOF of RFC 6962, section 2.1.2."""
    if old == new:
        root = old_root if whole else proof[-1]
        return root, root
    split = 1
    while split * 2 < new:
        split *= 2
    *rest, last = proof
    if old <= split:
        before, after = _roots(old, split, rest, old_root, whole=whole)
        return before, hashlib.sha256(b"\x01" + after + last).digest()
    before, after = _roots(old - split, new - split, rest, old_root, whole=False)
    return hashlib.sha256(b"\x01" + last + before).digest(), hashlib.sha256(b"\x01" + last + after).digest()


def test_the_checkpoint_carries_the_cosignature(log: Path) -> None:
    """What is handed out is signed by the log and by its witness."""
    found = Prover(log).checkpoint()

    assert _check_note(found["checkpoint"], found["verifier_key"])[1] == found["size"] == COUNT
    assert _check_note(found["checkpoint"], found["witness_keys"][0], cosignature=True)[1] == COUNT


def test_proofs_need_no_tiles_and_no_private_key(log: Path, tmp_path: Path) -> None:
    """The files of the log and the public keys are enough."""
    copy = shutil.copytree(log.parent, tmp_path / "copy")
    shutil.rmtree(copy / "audit" / "tile")
    shutil.rmtree(copy / "credentials" / "audit")

    assert Prover(copy / "audit").prove("r1/77") == Prover(log).prove("r1/77")
    with pytest.raises(NotFoundError, match="key is not here"):
        Prover(copy / "audit").consistency(37, 300)


def test_nothing_is_proven_about_a_changed_record(log: Path, tmp_path: Path) -> None:
    """A prover whose log does not fit its checkpoint says so, and gives nothing away that a verifier would refuse."""
    copy = shutil.copytree(log.parent, tmp_path / "copy") / "audit"
    segment = list_segments(copy)[0]
    segment.write_bytes(segment.read_bytes().replace(b'"route"', b'"rewte"', 1))

    with pytest.raises(FailedPreconditionError, match="verify"):
        Prover(copy).prove("r1/1")


def test_impossible_questions_are_refused(log: Path, tmp_path: Path) -> None:
    """Unknown records, sizes that the log never had and folders without a log are named."""
    calls: list[Any] = [
        (NotFoundError, lambda: Prover(log).prove("nobody")),
        (NotFoundError, lambda: Prover(log).prove("300")),
        (InvalidArgumentError, lambda: Prover(log).consistency(5, 301)),
        (InvalidArgumentError, lambda: Prover(log).consistency(6, 5)),
        (NotFoundError, lambda: Prover(tmp_path)),
    ]
    for error, call in calls:
        with pytest.raises(error):
            call()
