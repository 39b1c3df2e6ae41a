"""Signed statements, and what is none."""

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from evidence import cose
from evidence.cose import InvalidCoseError
from tlog.notes import Signer

SIGNER = Signer("strata/here", Ed25519PrivateKey.from_private_bytes(bytes(32)))
TYPE = "application/x"


def test_a_statement_is_accepted_from_its_signer_only() -> None:
    """The payload comes back under the signer's key and type, under no other."""
    signed = cose.sign(b"said", SIGNER, content_type=TYPE)
    stranger = Signer("strata/here", Ed25519PrivateKey.from_private_bytes(bytes([1] * 32))).verifier

    assert cose.verify(signed, [stranger, SIGNER.verifier], content_type=TYPE) == b"said"
    for keys, kind in (([stranger], TYPE), ([], TYPE), ([SIGNER.verifier], "application/y")):
        with pytest.raises(InvalidCoseError):
            cose.verify(signed, keys, content_type=kind)


def _changed(position: int, value: object) -> bytes:
    parts = list(cbor2.loads(cose.sign(b"said", SIGNER, content_type=TYPE)).value)
    parts[position] = value
    return cbor2.dumps(cbor2.CBORTag(18, parts))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"said",
        cbor2.dumps([1, 2, 3, 4]),
        cbor2.dumps(cbor2.CBORTag(17, [b"", {}, b"", b""])),
        _changed(0, cbor2.dumps({1: -7})),
        _changed(0, cbor2.dumps({1: -8, 2: [99], 3: TYPE, 4: cose.kid(SIGNER.verifier)})),
        _changed(1, {99: b"x"}),
        _changed(2, b"other"),
        _changed(2, None),
        _changed(3, bytes(64)),
        cose.sign(b"said", SIGNER, content_type=TYPE) + b"more",
    ],
)
def test_whatever_else_is_refused(content: bytes) -> None:
    """Other CBOR, another algorithm, a critical header, a detached or changed payload, trailing bytes: none of it is a statement."""
    with pytest.raises(InvalidCoseError):
        cose.verify(content, [SIGNER.verifier], content_type=TYPE)
