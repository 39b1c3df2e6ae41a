"""What a record's key opens, and what it does not."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from evidence.sealing import SealedError, open_sealed, record_key, seal

DATA_KEY, HEADER = bytes(range(32)), b'{"step":"route"}'


def test_only_the_key_of_the_record_opens_it() -> None:
    """Two records of one subject have different keys, and neither opens the other or a changed header."""
    first, second = seal(DATA_KEY, b"one", HEADER), seal(DATA_KEY, b"two", HEADER)
    key = record_key(DATA_KEY, first)

    assert open_sealed(key, first, HEADER) == b"one"
    assert key != record_key(DATA_KEY, second)
    for sealed, header in ((second, HEADER), (first, b"{}"), (first[:-1] + bytes([first[-1] ^ 1]), HEADER), (first[:20], HEADER)):
        with pytest.raises(SealedError):
            open_sealed(key, sealed, header)


def test_a_ciphertext_cannot_be_opened_to_another_story() -> None:
    """A key that fits the ciphertext but not the commitment is refused: nobody can prepare a second reading."""
    sealed = seal(DATA_KEY, b"one", HEADER)
    other = bytes(32)
    forged = sealed[:44] + AESGCM(other).encrypt(sealed[:12], b"two", HEADER)

    with pytest.raises(SealedError, match="commits"):
        open_sealed(other, forged, HEADER)
