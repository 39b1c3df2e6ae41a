"""What an administrator sets up on OpenSearch once: templates, two users who may do as little as possible, indices."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chassis.errors import InvalidArgumentError
from chassis.provisioning import write_private
from knowledge.opensearch import OpenSearchIndex
from knowledge.opensearch_client import Connection, NotThereError
from knowledge.opensearch_templates import Bm25, prefix, template
from knowledge.schema import Kind

INGESTOR, RETRIEVER = "strata_ingestor", "strata_retriever"
_INDICES = ["strata-*"]
_READ = ["indices:data/read/*", "indices:admin/aliases/get"]
_WRITE = [
    "indices:data/write/index*", "indices:data/write/delete*", "indices:data/write/bulk*", "indices:admin/refresh*",
    # New generations: made, filled, put in place of the old one, dropped.
    "indices:admin/create", "indices:admin/delete", "indices:admin/aliases*", "indices:admin/mappings/get",
]  # fmt: skip
_ROLES: Mapping[str, dict[str, Any]] = {
    INGESTOR: {
        "cluster_permissions": ["indices:data/write/bulk", "indices:data/read/mget", "indices:data/read/msearch"],
        "index_permissions": [{"index_patterns": _INDICES, "allowed_actions": [*_READ, *_WRITE]}],
    },
    RETRIEVER: {
        "cluster_permissions": ["indices:data/read/mget", "indices:data/read/msearch"],
        "index_permissions": [{"index_patterns": _INDICES, "allowed_actions": _READ}],
    },
}
_SECURITY = "/_plugins/_security/api"


@dataclass(frozen=True)
class Setup:
    """What was set up; `users` is empty on a cluster without the security plugin."""

    templates: list[str] = field(default_factory=list)
    users: dict[str, Path] = field(default_factory=dict)
    indices: list[str] = field(default_factory=list)


def password_file(credentials: Path, service: str) -> Path:
    """Return the file with the password of a service's user."""
    return credentials / service / "opensearch.password"


def ca_file(credentials: Path, service: str) -> Path:
    """Return the file with the certificate authority of the cluster for a service."""
    return credentials / service / "opensearch-ca.pem"


def setup(connection: Connection, credentials: Path, encoder: str, bm25: Mapping[Kind, Bm25] | None = None) -> Setup:
    """Make templates, roles, users with passwords under `credentials`, and the indices of `encoder`.

    What is there is brought up to date, passwords are kept, data is not touched. Raises a ServiceError when the cluster does
    not answer, or the user of `connection` may not do this.
    """
    done = Setup()
    for kind in Kind:
        name = prefix(kind).rstrip("-")
        _put(connection, f"/_index_template/{name}", template(kind, (bm25 or {}).get(kind, Bm25())))
        done.templates.append(name)
    if _is_secured(connection):
        for user, service in ((INGESTOR, "ingestor"), (RETRIEVER, "retriever")):
            done.users[user] = _user(connection, user, password_file(credentials, service))
    if connection.settings.ca_file is not None:
        for service in ("ingestor", "retriever"):
            write_private(ca_file(credentials, service), connection.settings.ca_file.read_bytes())
    OpenSearchIndex.create(connection, encoder)
    done.indices.extend(sorted(connection.call("GET", "/strata-*/_alias")))
    return done


def _is_secured(connection: Connection) -> bool:
    try:
        connection.call("GET", f"{_SECURITY}/account")
    except (NotThereError, InvalidArgumentError):
        # Without the plugin, the path is taken for one of an index.
        return False
    return True


def _user(connection: Connection, user: str, file: Path) -> Path:
    if not file.exists():
        write_private(file, secrets.token_urlsafe(32).encode())
    _put(connection, f"{_SECURITY}/roles/{user}", _ROLES[user])
    _put(connection, f"{_SECURITY}/internalusers/{user}", {"password": file.read_text().strip()})
    _put(connection, f"{_SECURITY}/rolesmapping/{user}", {"users": [user]})
    return file


def _put(connection: Connection, path: str, body: Mapping[str, Any]) -> None:
    connection.call("PUT", path, body, seconds=connection.settings.write_seconds)
