"""The signed statement of how long the log is and how it ends, so that a cut tail shows."""

import base64
import binascii
import json
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.chain import GENESIS
from chassis.messaging import canonical_json
from chassis.provisioning import key_id, write_private

HEAD_FILE = "head.json"
Keys = dict[str, Ed25519PublicKey]


class InvalidHeadError(ValueError):
    """The head file is missing, altered or signed by somebody else."""


@dataclass(frozen=True, slots=True)
class Head:
    """How many entries the log has and the hash of the last one."""

    size: int = 0
    hash: str = GENESIS


@dataclass(frozen=True)
class Signer:
    """The key of this installation's log."""

    key_id: str
    key: Ed25519PrivateKey

    def write(self, folder: Path, head: Head) -> None:
        """Replace the head file and return once it is on the disk; raise OSError when it is not."""
        body = _body(head, self.key_id)
        signature = base64.b64encode(self.key.sign(body)).decode()
        content = canonical_json({**json.loads(body), "signature": signature}) + b"\n"
        temporary = folder / f".{HEAD_FILE}"
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fdatasync(file.fileno())
        temporary.replace(folder / HEAD_FILE)
        sync_folder(folder)


def _body(head: Head, signed_by: str) -> bytes:
    return canonical_json({"hash": head.hash, "key_id": signed_by, "size": head.size})


def sync_folder(folder: Path) -> None:
    """Make names that were created or replaced in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_head(folder: Path, keys: Keys) -> Head:
    """Return the head that one of `keys` signed; raise InvalidHeadError for anything else."""
    try:
        content = (folder / HEAD_FILE).read_bytes()
    except FileNotFoundError as error:
        raise InvalidHeadError(f"{HEAD_FILE} is missing") from error
    try:
        fields = json.loads(content)
        head, signed_by = Head(int(fields["size"]), str(fields["hash"])), str(fields["key_id"])
        signature = base64.b64decode(fields["signature"], validate=True)
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise InvalidHeadError(f"{HEAD_FILE} is not readable: {error!r}") from error
    if signed_by not in keys:
        raise InvalidHeadError(f"{HEAD_FILE} is signed by key {signed_by!r}; known: {sorted(keys)}")
    body = _body(head, signed_by)
    written = canonical_json({**json.loads(body), "signature": base64.b64encode(signature).decode()}) + b"\n"
    try:
        keys[signed_by].verify(signature, body)
    except InvalidSignature as error:
        raise InvalidHeadError(f"the signature of {HEAD_FILE} does not match it") from error
    if written != content:
        raise InvalidHeadError(f"{HEAD_FILE} is not as it was written")
    return head


def load_signer(state_dir: Path) -> Signer:
    """Return the log's key; the first start creates it."""
    path = state_dir / "credentials" / "audit" / "head.pem"
    if not path.exists():
        write_private(
            path,
            Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError(f"{path} is not an Ed25519 key")
    signer = Signer(key_id(key.public_key()), key)
    _publish(_keys_file(state_dir), signer)
    return signer


def _keys_file(state_dir: Path) -> Path:
    return state_dir / "credentials" / "audit_keys.json"


def _publish(path: Path, signer: Signer) -> None:
    """Add the public key beside those of earlier keys, whose heads stay valid."""
    known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    if signer.key_id not in known:
        raw = signer.key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        write_private(path, json.dumps({**known, signer.key_id: base64.b64encode(raw).decode()}).encode())


def load_keys(state_dir: Path) -> Keys:
    """Return the public keys that may have signed a head; raise InvalidHeadError when there are none."""
    try:
        known = json.loads(_keys_file(state_dir).read_text())
    except FileNotFoundError as error:
        raise InvalidHeadError(f"{_keys_file(state_dir)} is missing; it holds the public keys of the log") from error
    return {name: Ed25519PublicKey.from_public_bytes(base64.b64decode(raw)) for name, raw in known.items()}
