"""Who may sign for the log: its own key, and the keys of the witnesses that are believed."""

import json
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tlog.notes import InvalidNoteError, Signer, Verifier, parse_verifier

_LOG_KEYS = "audit_log.vkey"
_WITNESS_KEYS = "audit_witnesses.json"


@dataclass(frozen=True)
class Trust:
    """The public keys against which a log is checked; earlier keys of the log stay valid."""

    log: tuple[Verifier, ...]
    witnesses: tuple[Verifier, ...] = ()


def load_signer(state_dir: Path) -> Signer:
    """Return the log's key, whose name is the log's origin; raise OSError before the installation is provisioned."""
    credentials = state_dir / "credentials"
    key = serialization.load_pem_private_key((credentials / "audit" / "log.pem").read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError("the key of the audit log is not an Ed25519 key")
    return Signer(parse_verifier((credentials / _LOG_KEYS).read_text().splitlines()[-1]).name, key)


def load_trust(state_dir: Path) -> Trust:
    """Return the public keys of an installation; raise InvalidNoteError when there are none."""
    credentials = state_dir / "credentials"
    try:
        log = tuple(parse_verifier(line) for line in (credentials / _LOG_KEYS).read_text().splitlines())
    except OSError as error:
        raise InvalidNoteError(f"{credentials / _LOG_KEYS} is missing; it holds the public keys of the log") from error
    except UnicodeDecodeError as error:
        raise InvalidNoteError(f"{credentials / _LOG_KEYS}: {error}") from error
    try:
        return Trust(log, tuple(parse_verifier(key) for key in witness_keys(state_dir).values()))
    except (ValueError, AttributeError) as error:
        raise InvalidNoteError(f"{witness_keys_file(state_dir)}: {error}") from error


def witness_keys(state_dir: Path) -> dict[str, str]:
    """Return the public keys of the witnesses that have cosigned, by URL."""
    path = state_dir / "credentials" / _WITNESS_KEYS
    found: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    return found


def witness_keys_file(state_dir: Path) -> Path:
    """Return the file in which the audit service keeps the keys of its witnesses."""
    return state_dir / "credentials" / _WITNESS_KEYS
