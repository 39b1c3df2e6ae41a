"""What the first start creates and nobody checks in: certificate authority, certificates, nkeys, signing key, bus configuration."""

import base64
import datetime as dt
import ipaddress
import json
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import nkeys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from contracts.identities import BY_NAME, NATS_MONITOR_PORT, NATS_PORT, SERVICES, permissions
from tlog.notes import Signer

PROVISIONER = "provisioner"
_VALID = dt.timedelta(days=825)
_EVERYTHING = {"publish": [">"], "subscribe": [">"]}
# Of the credentials, what several services read: in a folder beside them, for a container that is given a file keeps the one of its start.
PUBLIC = ("ca.pem", "release_keys.json", "audit_log.vkey")
_WITNESSES = "audit_witnesses.json"
# What each keeps under the state folder besides its keys, and who else reads it.
KEEPS = {
    "audit": ("audit", "audit_run", "witnesses"),
    "ingestor": ("ingestor", "knowledge"),
    "tool_sandbox": ("tool_sandbox",),
    "engine": ("models",),
}
READS = {"retriever": ("knowledge",)}
# These write in the folder of their keys: audit the keys of subjects, webhooks the key of its secrets.
KEEP_KEYS = ("audit", "webhooks")


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all; a link stays one."""
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)


def provision(state_dir: Path, *, port_offset: int = 0, bind_host: str = "127.0.0.1") -> Path:
    """Create whatever is missing under `state_dir`; return the path of the bus configuration."""
    credentials = state_dir / "credentials"
    credentials.mkdir(parents=True, exist_ok=True, mode=0o700)
    # A volume's root may be somebody else's; what is in it has modes of its own.
    with suppress(PermissionError):
        state_dir.chmod(0o700)
    for name in PUBLIC:
        _lead(credentials / name, state_dir / "public" / name)
    _lead(state_dir / "nats.conf", state_dir / "bus" / "nats.conf")
    # Audit writes this one, into a folder of its own.
    for folder in (credentials, state_dir / "public"):
        _lead(folder / _WITNESSES, state_dir / "witnesses" / _WITNESSES)
    if not (credentials / _WITNESSES).exists():
        write_private(credentials / _WITNESSES, b"{}")
    _authority(credentials)
    for identity in SERVICES:
        _certificate(credentials, identity.name, identity.dns_name)
        _nkey(credentials / identity.name / "nats.seed")
    _nkey(credentials / PROVISIONER / "nats.seed")
    _signing_key(credentials)
    provision_log(credentials)
    _secret(credentials / "inference" / "engine.key")
    _secret(credentials / "guardrail" / "vault.key")
    return write_bus_configuration(state_dir, port_offset=port_offset, bind_host=bind_host)


def provision_folders(state_dir: Path) -> None:
    """Create the folders that containers are given, each no more than its own; last those in `public` at which a service finds its keys."""
    kept = sorted(name for names in KEEPS.values() for name in names)
    for name in ("nats", *kept, *(f"public/{identity.name}" for identity in SERVICES)):
        (state_dir / name).mkdir(parents=True, exist_ok=True, mode=0o700)


def _lead(link: Path, target: Path) -> None:
    """Keep a file at `target`, under its old name too; what an earlier version wrote moves there, and nobody finds it missing meanwhile."""
    if link.is_symlink():
        return
    target.parent.mkdir(exist_ok=True, mode=0o700)
    if link.exists():
        write_private(target, link.read_bytes())
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target, link.parent))
    temporary.replace(link)


def _pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _authority(credentials: Path) -> None:
    if (credentials / "ca.pem").exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Strata local authority")])
    certificate = (
        _builder(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_private(credentials / "ca.key", _pem(key))
    write_private(credentials / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM))


def _builder(subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + _VALID)
    )


def _certificate(credentials: Path, name: str, dns_name: str) -> None:
    folder = credentials / name
    if (folder / "cert.pem").exists():
        return
    authority = x509.load_pem_x509_certificate((credentials / "ca.pem").read_bytes())
    signer = serialization.load_pem_private_key((credentials / "ca.key").read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)  # noqa: S101 - narrows the type of our own file
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.DNSName(dns_name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = _builder(subject, authority.subject, key.public_key()).add_extension(names, critical=False).sign(signer, hashes.SHA256())
    write_private(folder / "key.pem", _pem(key))
    write_private(folder / "cert.pem", certificate.public_bytes(serialization.Encoding.PEM))


def _nkey(path: Path) -> None:
    if not path.exists():
        write_private(path, nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER))


def _secret(path: Path) -> None:
    if not path.exists():
        write_private(path, base64.urlsafe_b64encode(secrets.token_bytes(32)))


def _signing_key(credentials: Path) -> None:
    path = credentials / "guardrail" / "signing.pem"
    if path.exists():
        return
    key = Ed25519PrivateKey.generate()
    write_private(path, _pem(key))
    write_private(credentials / "release_keys.json", json.dumps(_trusted(key)).encode())


def _trusted(key: Ed25519PrivateKey) -> dict[str, str]:
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return {key_id(key.public_key()): base64.b64encode(raw).decode()}


def rotate_signing_key(state_dir: Path, *, pause_seconds: float = 2.0) -> tuple[str, str]:
    """Give guardrail a new release key and return the ids of the old and the new one; releases of both stay valid.

    Whoever verifies learns the new public key before anything is signed with it.
    """
    credentials = state_dir / "credentials"
    old, _ = load_signing_key(state_dir)
    key = Ed25519PrivateKey.generate()
    known: dict[str, str] = json.loads((credentials / "release_keys.json").read_text())
    write_private(credentials / "release_keys.json", json.dumps({**known, **_trusted(key)}).encode())
    time.sleep(pause_seconds)
    write_private(credentials / "guardrail" / "signing.pem", _pem(key))
    return old, key_id(key.public_key())


def retire_release_key(state_dir: Path, name: str) -> None:
    """Trust releases of an old key no more; raise ValueError for the current key or an unknown one."""
    path = state_dir / "credentials" / "release_keys.json"
    known: dict[str, str] = json.loads(path.read_text())
    if name == load_signing_key(state_dir)[0]:
        raise ValueError(f"{name} signs now; rotate first")
    if name not in known:
        raise ValueError(f"no key {name!r}; known: {sorted(known)}")
    write_private(path, json.dumps({other: raw for other, raw in known.items() if other != name}).encode())


def provision_log(credentials: Path) -> None:
    """Create the audit log's signing key under a name of this installation's own, and the key that wraps its tenants' keys."""
    path = credentials / "audit" / "log.pem"
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        signer = Signer(f"strata/{secrets.token_hex(8)}", key)
        write_private(credentials / "audit_log.vkey", f"{signer.verifier}\n".encode())
        write_private(path, _pem(key))
    _secret(credentials / "audit" / "master.key")


def key_id(public: Ed25519PublicKey) -> str:
    """Return the identifier of a release key: the first 16 hexadecimal digits of its SHA-256."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))
    return digest.finalize().hex()[:16]


def load_signing_key(state_dir: Path) -> tuple[str, Ed25519PrivateKey]:
    """Return guardrail's key id and private key."""
    key = serialization.load_pem_private_key((state_dir / "credentials" / "guardrail" / "signing.pem").read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError("the release key is not an Ed25519 key")
    return key_id(key.public_key()), key


def load_release_keys(state_dir: Path) -> dict[str, Ed25519PublicKey]:
    """Return the public keys whose releases are valid, by key id."""
    trusted = json.loads((state_dir / "credentials" / "release_keys.json").read_text())
    return {name: Ed25519PublicKey.from_public_bytes(base64.b64decode(raw)) for name, raw in trusted.items()}


def _public(path: Path) -> str:
    return str(nkeys.from_seed(bytearray(path.read_bytes())).public_key.decode())


def _user(credentials: Path, name: str) -> dict[str, object]:
    return {"nkey": _public(credentials / name / "nats.seed"), "permissions": permissions(BY_NAME[name])}


def write_bus_configuration(state_dir: Path, *, port_offset: int = 0, bind_host: str = "127.0.0.1") -> Path:
    """Write nats.conf: durable JetStream, one user per service and tenant key with its own subjects only."""
    credentials = state_dir / "credentials"
    users: list[dict[str, object]] = [
        {"nkey": _public(credentials / PROVISIONER / "nats.seed"), "permissions": _EVERYTHING},
        *(_user(credentials, name) for name in BY_NAME),
        *(json.loads(path.read_text()) for path in sorted((credentials / "tenants").glob("*.json"))),
    ]
    configuration: Mapping[str, object] = {
        "listen": f"{bind_host}:{NATS_PORT + port_offset}",
        "http": f"{bind_host}:{NATS_MONITOR_PORT + port_offset}",
        "server_name": "strata",
        "max_payload": 4 * 1024 * 1024,
        # The bounds of the streams add up to 21 GB, which is more than a small disk has free and far more than they hold;
        # without a figure of its own the server would refuse to declare them there. Audit watches the disk.
        "jetstream": {"store_dir": str((state_dir / "nats").resolve()), "sync_interval": "always", "max_file_store": "64G"},
        "authorization": {"users": users},
    }
    path = state_dir / "nats.conf"
    # JSON is valid in the server's configuration language.
    write_private(path, json.dumps(configuration, indent=1).encode())
    return path
