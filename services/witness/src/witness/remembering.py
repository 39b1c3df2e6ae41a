"""What a witness knows of each log, and when it lends its signature (C2SP tlog-witness and tlog-cosignature)."""

import base64
import binascii
import hashlib
import os
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from threading import Lock

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tlog.notes import COSIGNATURE, Checkpoint, InvalidNoteError, Signer, Verifier, open_checkpoint
from tlog.tree import EMPTY_ROOT, HASH_BYTES, InvalidProofError, verify_consistency

_MOST_PROOF_LINES = 63


class RefusedError(Exception):
    """The checkpoint is not cosigned; `status` says why, as the specification has it."""

    def __init__(self, status: HTTPStatus, message: str, *, known_size: int | None = None) -> None:
        """Keep the size that the witness knows where the log must prove from another one."""
        super().__init__(message)
        self.status, self.known_size = status, known_size


@dataclass(frozen=True, slots=True)
class Request:
    """A checkpoint that a log wants cosigned, with the proof that it continues the one of `old` leaves."""

    old: int
    proof: list[bytes]
    note: str


def parse_request(body: bytes) -> Request:
    """Return the request of a body; raise RefusedError (400) when it is none."""
    try:
        head, _, note = body.decode().partition("\n\n")
        first, *rest = head.split("\n")
        word, number = first.split(" ")
        old, proof = int(number), [base64.b64decode(line, validate=True) for line in rest]
    except (ValueError, binascii.Error) as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"not a request of tlog-witness: {error}") from error
    if word != "old" or str(old) != number or old < 0 or len(proof) > _MOST_PROOF_LINES or any(len(part) != HASH_BYTES for part in proof):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "not a request of tlog-witness: `old N`, up to 63 hashes of 32 bytes, a checkpoint")
    return Request(old, proof, note)


class Witness:
    """The memory and the key of one witness, in a folder of its own."""

    def __init__(self, folder: Path, logs: list[Verifier], *, name: str = "") -> None:
        """Load the key, or make one; raise InvalidNoteError when what was remembered was changed."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder, self._logs = folder, {log.name: log for log in logs}
        self.signer = _load_key(folder, name)
        self._lock = Lock()
        for log in logs:
            self._known(log)

    def add_checkpoint(self, request: Request) -> str:
        """Return our signature line under a checkpoint that continues what we know; raise RefusedError for any other."""
        found, log, text = self._opened(request.note)
        if request.old > found.size:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"the old size {request.old} is beyond the checkpoint's {found.size}")
        with self._lock:
            known = self._known(log)
            if request.old != known.size:
                raise RefusedError(HTTPStatus.CONFLICT, f"the log was last seen with {known.size} leaves", known_size=known.size)
            if request.old == found.size and known.root != found.root:
                raise RefusedError(HTTPStatus.CONFLICT, "another root was signed for this size: the log has forked", known_size=known.size)
            try:
                verify_consistency(request.old, found.size, request.proof, known.root, found.root)
            except InvalidProofError as error:
                raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
            line = self.signer.line(text, timestamp=int(time.time()))
            # Remembered before anybody has the signature, so that no two roots of one size ever get one.
            self._remember(log, request.note + line)
        return line

    def _opened(self, note: str) -> tuple[Checkpoint, Verifier, str]:
        origin = note.split("\n", 1)[0]
        log = self._logs.get(origin)
        if log is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"log {origin!r} is not one of ours")
        try:
            found, parsed = open_checkpoint(note, log)
        except InvalidNoteError as error:
            raise RefusedError(HTTPStatus.FORBIDDEN, str(error)) from error
        return found, log, parsed.text

    def _path(self, log: Verifier) -> Path:
        return self._folder / f"{hashlib.sha256(log.name.encode()).hexdigest()[:32]}.checkpoint"

    def _known(self, log: Verifier) -> Checkpoint:
        path = self._path(log)
        if not path.exists():
            return Checkpoint(log.name, 0, EMPTY_ROOT)
        found, note = open_checkpoint(path.read_bytes().decode(errors="replace"), log)
        if self.signer.name not in note.verified([self.signer.verifier]):
            raise InvalidNoteError(f"{path} does not have our own signature")
        return found

    def _remember(self, log: Verifier, note: str) -> None:
        path = self._path(log)
        temporary = path.with_suffix(".new")
        with temporary.open("wb") as file:
            file.write(note.encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _load_key(folder: Path, name: str) -> Signer:
    path, public = folder / "witness.pem", folder / "witness.vkey"
    if not path.exists():
        content = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError(f"{path} is not an Ed25519 key")
    if public.exists():
        name = public.read_text().split("+", 1)[0]
    signer = Signer(name or f"witness/{os.urandom(6).hex()}", key, COSIGNATURE)
    public.write_text(f"{signer.verifier}\n")
    return signer
