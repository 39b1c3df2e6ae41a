"""What the rows of declared tables hang on and no event tells of: the tables themselves, their partitions, the types of their columns."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ingestor.postgres.catalog import Catalog

_STANDING = """
select n.nspname || '.' || c.relname, c.oid::bigint,
  array(select p.relid::oid::bigint || ':' || coalesce(pg_relation_filenode(p.relid), 0)::bigint
        from pg_partition_tree(c.oid) p where p.isleaf and c.relkind = 'p' order by 1),
  (select json_object_agg(a.attname, a.atttypid::bigint || ':' || a.atttypmod)::text from pg_attribute a
   where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname || '.' || c.relname = any(%s) and c.relkind in ('r', 'p')
"""


@dataclass(frozen=True)
class Standing:
    """The declared tables that there are: by name identifier, partitions as one value, and types by column."""

    tables: Mapping[str, Any]
    needed: Mapping[str, tuple[str, ...]]

    @property
    def lacking(self) -> bool:
        """Whether a column that is needed is not there."""
        return any(name in self.tables and column not in self.tables[name][2] for name in self.needed for column in self.needed[name])

    def differs(self, before: object) -> bool:
        """Return whether rows may have come, gone or changed unheard since `before`, the `tables` of then; not where those are unknown."""
        return isinstance(before, dict) and self._used(before) != self._used(self.tables)

    def _used(self, tables: Mapping[str, Any]) -> dict[str, Any]:
        """Return what concerns the declared tables and the columns that are needed now."""
        found = {}
        for name, columns in self.needed.items():
            if name in tables:
                identifier, parts, types = tables[name]
                found[name] = (identifier, parts, [types.get(column) for column in columns])
        return found


def standing(catalog: Catalog, needed: Mapping[str, tuple[str, ...]]) -> Standing:
    """Return what the declared tables, whose `needed` columns are named, are made of now; blocks, and raises a ServiceError."""
    tables = {}
    for name, identifier, parts, columns in catalog.ask(_STANDING, list(needed)):
        # Partitions may be many, and only whether they are the same counts.
        tables[name] = [identifier, hashlib.sha256(",".join(parts).encode()).hexdigest()[:16], json.loads(columns or "{}")]
    return Standing(tables, needed)
