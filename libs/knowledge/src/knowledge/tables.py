"""Every table that an engine holds, whatever encoder or version of the software made it."""

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from knowledge.schema import Kind
from knowledge.visibility import literals

if TYPE_CHECKING:
    from knowledge.opensearch_client import Connection

Version = tuple[int, dt.datetime, bool]


class Tables(Protocol):
    """The tables of one engine, by name."""

    def names(self) -> list[str]:
        """Return the names of all tables."""
        ...

    def encoder(self, name: str) -> str:
        """Return the key of the encoder that a table was made for."""
        ...

    def of(self, encoder: str) -> set[str]:
        """Return the names that the tables of an encoder have in this version of the software."""
        ...

    def holds(self, name: str, key: str) -> bool:
        """Return whether a table holds a document, given by its key."""
        ...

    def versions(self, name: str, key: str) -> list[Version]:
        """Return every stored version of a table, when it was made, and whether it holds a document; none where nothing older is kept."""
        ...

    def drop(self, name: str) -> None:
        """Remove a table; one that is not there is no error."""
        ...


class LanceTables:
    """The tables in a folder."""

    def __init__(self, folder: Path) -> None:
        """Look at `folder`, which may not be there yet."""
        self._folder = folder

    def names(self) -> list[str]:
        """Return the names of all tables."""
        return sorted(path.stem for path in self._folder.glob("*.lance"))

    def encoder(self, name: str) -> str:
        """Return the key of the encoder that a table was made for."""
        return name.partition("_")[2]

    def of(self, encoder: str) -> set[str]:
        """Return the names that the tables of an encoder have in this version of the software."""
        from knowledge.lance_rows import table_name

        return {table_name(kind, encoder) for kind in Kind}

    def holds(self, name: str, key: str) -> bool:
        """Return whether a table holds a document, given by its key."""
        return _holds(self._database().open_table(name), key)

    def versions(self, name: str, key: str) -> list[Version]:
        """Return every stored version of a table, when it was made, and whether it holds a document."""
        # A handle of its own: reading an old version must not take the one that queries use there.
        table, found = self._database().open_table(name), list[Version]()
        for version in table.list_versions():
            table.checkout(version["version"])
            made = version["timestamp"]
            found.append((int(version["version"]), made if made.tzinfo else made.astimezone(dt.UTC), _holds(table, key)))
        return found

    def drop(self, name: str) -> None:
        """Remove a table; one that is not there is no error."""
        if name in self.names():
            self._database().drop_table(name)

    def _database(self) -> Any:
        import lancedb

        return lancedb.connect(self._folder, read_consistency_interval=dt.timedelta(0))


class OpenSearchTables:
    """The indices of a cluster that are ours."""

    def __init__(self, connection: "Connection") -> None:
        """Look over `connection`."""
        self._connection = connection

    def names(self) -> list[str]:
        """Return the names of all indices."""
        wanted = tuple(f"strata-{kind.value}-" for kind in Kind)
        return sorted(name for name in self._connection.call("GET", "/strata-*/_alias") if name.startswith(wanted))

    def encoder(self, name: str) -> str:
        """Return the key of the encoder that an index was made for."""
        return name.split("-", 3)[3].rpartition("-")[0]

    def of(self, encoder: str) -> set[str]:
        """Return the names that the indices of an encoder have in this version of the software."""
        from knowledge.opensearch_templates import physical

        return {physical(kind, encoder) for kind in Kind}

    def holds(self, name: str, key: str) -> bool:
        """Return whether an index holds a document, given by its key; what is left of a deletion is none."""
        gone = {"exists": {"field": "deleted_at"}}
        query = {"bool": {"filter": [{"term": {"document_key": key}}], "must_not": [gone]}}
        found = self._connection.search(name, {"size": 0, "query": query, "track_total_hits": 1})
        return bool(found["hits"]["total"]["value"])

    def versions(self, name: str, key: str) -> list[Version]:  # noqa: ARG002 - the engine keeps none
        """Return nothing: no older version of an index can be read."""
        return []

    def drop(self, name: str) -> None:
        """Remove an index; one that is not there is no error."""
        from knowledge.opensearch_client import NotThereError

        try:
            self._connection.call("DELETE", f"/{name}", seconds=self._connection.settings.write_seconds)
        except NotThereError:
            return


def _holds(table: Any, key: str) -> bool:
    return bool(table.count_rows(f"document_key = {literals([key])}"))
