"""Where an evaluation keeps its indexes: a folder, or a cluster of OpenSearch; nothing of it stays."""

import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from chassis.errors import ServiceError
from knowledge.backends import BackendSettings, connect
from knowledge.index import Index
from knowledge.lance import LanceIndex
from knowledge.lance_resident import RESIDENT
from knowledge.opensearch import OpenSearchIndex
from knowledge.opensearch_client import Connection

_BACKENDS = ("embedded", "opensearch")


class Scratch:
    """Indexes of one evaluation."""

    def __init__(self, folder: Path, cluster: Connection | None) -> None:
        """Make them in `cluster`, or in `folder` without one."""
        self.folder, self._cluster, self._made = folder, cluster, list[str]()

    def create(self, name: str, encoder: str) -> Index:
        """Return a new index for vectors of `encoder`."""
        if self._cluster is None:
            (self.folder / name).mkdir(exist_ok=True)
            # As the service opens it, so that latencies are its own.
            return LanceIndex.create(self.folder / name, encoder, resident=RESIDENT)
        # A name that no service looks for, so that what it serves is never met.
        own = f"eval-{secrets.token_hex(4)}"
        self._made.append(own)
        index = OpenSearchIndex.create(self._cluster, own)
        index.encoder = encoder
        return index

    def remove(self) -> None:
        """Delete what was made in the cluster."""
        if self._cluster is not None:
            for own in self._made:
                self._cluster.call("DELETE", f"/strata-*-{own}-*", seconds=self._cluster.settings.write_seconds)


@contextmanager
def scratch(options: Mapping[str, str]) -> Iterator[Scratch]:
    """Give a place as the options say: `backend`, and for OpenSearch `url`, `state`, `ca`, `user`, `password_file`.

    What `strata knowledge init` left under `state` (`.strata` without it) is used for what is not named. Raises ValueError for an unknown
    backend, OSError when the cluster does not answer, refuses the user or is not set up.
    """
    backend = options.get("backend") or "embedded"
    if backend not in _BACKENDS:
        raise ValueError(f"option 'backend': {backend!r} is none of {_BACKENDS}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            place = Scratch(Path(folder), _cluster(options) if backend == "opensearch" else None)
            try:
                yield place
            finally:
                place.remove()
        except ServiceError as error:
            raise OSError(str(error)) from error


def _cluster(options: Mapping[str, str]) -> Connection:
    url, user = options.get("url") or "https://127.0.0.1:9200", options.get("user")
    authority, password = (Path(options[name]) if options.get(name) else None for name in ("ca", "password_file"))
    settings = BackendSettings(backend="opensearch", url=url, ca_file=authority, user=user, password_file=password, search_seconds=30)
    return connect(settings, Path(options.get("state") or ".strata"), "ingestor")
