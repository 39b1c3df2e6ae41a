"""Signed notes, checkpoints and cosignatures after C2SP signed-note, tlog-checkpoint and tlog-cosignature."""

import base64
import binascii
import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tlog.tree import HASH_BYTES

ED25519 = 0x01
COSIGNATURE = 0x04
_DASH = "\u2014 "
_ID_BYTES = 4
_SIGNATURE_BYTES = 64
_TIME_BYTES = 8


class InvalidNoteError(ValueError):
    """The text is no note, or not signed as it must be."""


def _raw(public: Ed25519PublicKey) -> bytes:
    return public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def _check_name(name: str) -> str:
    if not name or "+" in name or any(character.isspace() for character in name):
        raise InvalidNoteError(f"{name!r} is not the name of a key: it is empty or has a space or a plus")
    return name


@dataclass(frozen=True)
class Verifier:
    """A public key with its name; `algorithm` is ED25519 for logs and COSIGNATURE for witnesses."""

    name: str
    public: Ed25519PublicKey
    algorithm: int = ED25519

    @property
    def key_id(self) -> bytes:
        """The four bytes that announce this key in a signature line."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.algorithm]) + _raw(self.public)).digest()[:_ID_BYTES]

    def __str__(self) -> str:
        """Return the key as text, `name+id+base64`, which `parse_verifier` reads."""
        key = base64.b64encode(bytes([self.algorithm]) + _raw(self.public)).decode()
        return f"{self.name}+{self.key_id.hex()}+{key}"

    def check(self, text: str, signature: bytes) -> int:
        """Return the time in Unix seconds that a cosignature states, 0 for a plain one; raise InvalidNoteError when it is not ours."""
        timestamp, message = 0, text.encode()
        if self.algorithm == COSIGNATURE:
            if len(signature) != _TIME_BYTES + _SIGNATURE_BYTES:
                raise InvalidNoteError(f"the cosignature of {self.name} has {len(signature)} bytes")
            timestamp = struct.unpack(">Q", signature[:_TIME_BYTES])[0]
            message, signature = _cosigned(text, timestamp), signature[_TIME_BYTES:]
        try:
            self.public.verify(signature, message)
        except InvalidSignature as error:
            raise InvalidNoteError(f"the signature of {self.name} does not match the note") from error
        return int(timestamp)


def parse_verifier(text: str) -> Verifier:
    """Return the key that `name+id+base64` names; raise InvalidNoteError when it is none or its id is not its own."""
    try:
        name, key_id, encoded = text.strip().split("+", 2)
        key = base64.b64decode(encoded, validate=True)
        found = Verifier(_check_name(name), Ed25519PublicKey.from_public_bytes(key[1:]), key[0])
    except (ValueError, IndexError, binascii.Error) as error:
        raise InvalidNoteError(f"{text!r} is not a verifier key: {error}") from error
    if found.algorithm not in {ED25519, COSIGNATURE} or found.key_id.hex() != key_id:
        raise InvalidNoteError(f"{text!r} is not a verifier key: its algorithm is unknown or its id is not its own")
    return found


@dataclass(frozen=True)
class Signer:
    """A private key with its name."""

    name: str
    key: Ed25519PrivateKey
    algorithm: int = ED25519

    @property
    def verifier(self) -> Verifier:
        """The public half."""
        return Verifier(_check_name(self.name), self.key.public_key(), self.algorithm)

    def line(self, text: str, *, timestamp: int = 0) -> str:
        """Return the signature line of a note; a cosignature states `timestamp` in Unix seconds."""
        verifier = self.verifier
        if self.algorithm == COSIGNATURE:
            signature = struct.pack(">Q", timestamp) + self.key.sign(_cosigned(text, timestamp))
        else:
            signature = self.key.sign(text.encode())
        return f"{_DASH}{self.name} {base64.b64encode(verifier.key_id + signature).decode()}\n"

    def sign(self, text: str) -> str:
        """Return the note: the text, a blank line, the signature."""
        return f"{text}\n{self.line(text)}"


def _cosigned(text: str, timestamp: int) -> bytes:
    return f"cosignature/v1\ntime {timestamp}\n{text}".encode()


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line, not checked."""

    name: str
    key_id: bytes
    signature: bytes
    line: str


@dataclass(frozen=True, slots=True)
class Note:
    """A text and the signatures under it, not checked."""

    text: str
    signatures: tuple[Signature, ...]

    def verified(self, verifiers: Iterable[Verifier]) -> dict[str, int]:
        """Return the names of `verifiers` that signed, with the stated time; raise InvalidNoteError when one's signature is wrong."""
        known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
        found: dict[str, int] = {}
        for signature in self.signatures:
            verifier = known.get((signature.name, signature.key_id))
            if verifier is not None:
                found[verifier.name] = verifier.check(self.text, signature.signature)
        return found

    def __str__(self) -> str:
        """Return the note as it is written."""
        return f"{self.text}\n{''.join(signature.line for signature in self.signatures)}"


def parse_note(content: str) -> Note:
    """Return the note; raise InvalidNoteError when it is not written exactly as notes are."""
    text, separator, block = content.rpartition("\n\n")
    if not separator or not block.endswith("\n") or any(ord(c) < 0x20 and c != "\n" for c in content):
        raise InvalidNoteError("not a signed note")
    return Note(text + "\n", tuple(parse_signature(line + "\n") for line in block[:-1].split("\n")))


def parse_signature(line: str) -> Signature:
    """Return a signature line, which ends with a newline; raise InvalidNoteError when it is none."""
    try:
        name, encoded = line.removeprefix(_DASH).rstrip("\n").split(" ")
        content = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error) as error:
        raise InvalidNoteError(f"not a signature line: {line!r}") from error
    found = Signature(_check_name(name), content[:_ID_BYTES], content[_ID_BYTES:], line)
    if len(content) <= _ID_BYTES or line != f"{_DASH}{name} {base64.b64encode(content).decode()}\n":
        raise InvalidNoteError(f"not a signature line: {line!r}")
    return found


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How many leaves a log has and the root over them."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the body of the checkpoint's note."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Return the checkpoint of a note's text; raise InvalidNoteError when it is none. Lines that extend it are allowed."""
    lines = text.split("\n")
    try:
        origin, size, root = lines[0], int(lines[1]), base64.b64decode(lines[2], validate=True)
    except (ValueError, IndexError, binascii.Error) as error:
        raise InvalidNoteError(f"not a checkpoint: {error}") from error
    found = Checkpoint(_check_name(origin), size, root)
    if size < 0 or len(root) != HASH_BYTES or not text.startswith(found.text()):
        raise InvalidNoteError("not a checkpoint: its lines are not written as they must be")
    return found


def open_checkpoint(content: str, log: Verifier) -> tuple[Checkpoint, Note]:
    """Return the checkpoint that `log` signed; raise InvalidNoteError for anything else."""
    note = parse_note(content)
    found = parse_checkpoint(note.text)
    if found.origin != log.name:
        raise InvalidNoteError(f"the checkpoint is of log {found.origin!r}, not of {log.name!r}")
    if log.name not in note.verified([log]):
        raise InvalidNoteError(f"the checkpoint is not signed by {log}")
    return found, note
