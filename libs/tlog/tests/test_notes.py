"""Notes, checkpoints and cosignatures, against the specification's own example and against changes."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from tlog.notes import (
    COSIGNATURE,
    Checkpoint,
    InvalidNoteError,
    Signer,
    open_checkpoint,
    parse_checkpoint,
    parse_note,
    parse_signature,
    parse_verifier,
)

# From the documentation of golang.org/x/mod/sumdb/note.
EXAMPLE_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
EXAMPLE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
LOG = Signer("strata/test", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
WITNESS = Signer("witness/one", Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))), COSIGNATURE)
BODY = Checkpoint("strata/test", 7, hashlib.sha256(b"root").digest()).text()


def test_the_example_of_another_project_verifies() -> None:
    """A note that Go's implementation signed is accepted, and written back as it was."""
    note = parse_note(EXAMPLE)

    assert note.verified([parse_verifier(EXAMPLE_KEY)]) == {"PeterNeumann": 0}
    assert str(note) == EXAMPLE
    assert str(parse_verifier(EXAMPLE_KEY)) == EXAMPLE_KEY


def test_a_checkpoint_is_read_back() -> None:
    """The one who wrote it, the size and the root come out, with the note that says so."""
    found, note = open_checkpoint(LOG.sign(BODY), LOG.verifier)

    assert (found.origin, found.size, found.text()) == ("strata/test", 7, BODY)
    assert [signature.name for signature in note.signatures] == ["strata/test"]


def test_a_signature_is_what_the_specification_says() -> None:
    """Key id, algorithm byte and message are built here again from the text of the specification."""
    public = LOG.key.public_key().public_bytes_raw()
    key_id = hashlib.sha256(b"strata/test\n\x01" + public).digest()[:4]
    raw = base64.b64decode(LOG.sign(BODY).rsplit(" ", 1)[1])

    assert raw[:4] == key_id
    Ed25519PublicKey.from_public_bytes(public).verify(raw[4:], BODY.encode())


def test_a_cosignature_states_its_time() -> None:
    """A witness signs the time and the body, after which the log's own signature still holds."""
    note = parse_note(LOG.sign(BODY) + WITNESS.line(BODY, timestamp=1_700_000_000))
    raw = base64.b64decode(note.signatures[1].line.rsplit(" ", 1)[1])

    assert note.verified([LOG.verifier, WITNESS.verifier]) == {"strata/test": 0, "witness/one": 1_700_000_000}
    assert int.from_bytes(raw[4:12], "big") == 1_700_000_000
    WITNESS.key.public_key().verify(raw[12:], b"cosignature/v1\ntime 1700000000\n" + BODY.encode())


def test_unknown_signers_prove_nothing() -> None:
    """A note without a signature of the wanted key is refused; others beside it are passed over."""
    other = Signer("strata/test", Ed25519PrivateKey.generate())

    with pytest.raises(InvalidNoteError, match="not signed by"):
        open_checkpoint(other.sign(BODY), LOG.verifier)
    assert open_checkpoint(LOG.sign(BODY) + other.line(BODY), LOG.verifier)[0].size == 7


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_every_changed_byte_is_noticed(data: st.DataObject) -> None:
    """No byte of a cosigned checkpoint can change without one of the signatures or the form failing."""
    content = (LOG.sign(BODY) + WITNESS.line(BODY, timestamp=1_700_000_000)).encode()
    at = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[at] ^= data.draw(st.integers(1, 255))

    try:
        _, note = open_checkpoint(changed.decode(), LOG.verifier)
        assert WITNESS.name not in note.verified([WITNESS.verifier])
    except (InvalidNoteError, UnicodeDecodeError):
        pass


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x\n",
        "strata/test\n7\n",
        "strata/test\n07\nAAAA\n",
        "strata/test\n-1\n" + BODY.split("\n")[2] + "\n",
        "a b\n7\n" + BODY.split("\n")[2] + "\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    """Missing lines, sizes written in another way and names with spaces are errors, not guesses."""
    with pytest.raises(InvalidNoteError):
        parse_checkpoint(text)


@pytest.mark.parametrize("key", ["", "a+b", "n+00000000+" + EXAMPLE_KEY.rsplit("+", 1)[1], "n+zz+!!", "a b+c74f20a3+ARpc"])
def test_what_is_no_key_is_refused(key: str) -> None:
    """A verifier key says its own id, and nothing else passes for one."""
    with pytest.raises(InvalidNoteError):
        parse_verifier(key)


def test_a_signature_line_is_written_in_one_way() -> None:
    """Base64 with stray bits, a short signature or another dash is no signature."""
    for line in ("\u2014 n AAAA\n", "- n AAAAAAAA\n", "\u2014 n AAAAAAAB=\n"):
        with pytest.raises(InvalidNoteError):
            parse_signature(line)
