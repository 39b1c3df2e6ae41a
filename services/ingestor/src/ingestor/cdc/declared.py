"""What a ledger must know when the declared tables are others than before."""

from collections.abc import Sequence

from ingestor.cdc.mapping import Table
from ingestor.cdc.rows import Rows, StreamState


def adopt(rows: Rows, stream: str, state: StreamState, empty: Sequence[Table]) -> None:
    """Note how far a stream was read, and of which tables the index holds nothing that is not in the ledger."""
    with rows.transaction():
        rows.set_stream(stream, state)
        for table in empty:
            rows.set_table_state(table.source.name, table.name, complete=1)


def forget_undeclared(rows: Rows, tables: Sequence[Table]) -> None:
    """Note which tables nobody maps any more: declared again they are read anew, and what others feed now is theirs.

    Under another name, of the source or of the table, the same documents come from other rows.
    """
    declared = {(table.source.name, table.name) for table in tables}
    with rows.transaction():
        for source, name in rows.known_tables():
            if (source, name) not in declared:
                rows.set_mapping(source, name, "")
                rows.set_table_state(source, name, begun=-1, complete=0)
                for collection in sorted({table.collection.name for table in tables}):
                    rows.forget_rows(source, name, collection)
