"""What indices on OpenSearch are called and made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from encoders.encoder import DIMENSIONS
from knowledge.schema import SCHEMA_VERSION, Kind

# Stands in for a time or place that has not come; no real one is as late.
NEVER = 2**63 - 1
_LISTED = {"type": "keyword", "index": False, "doc_values": True}
_KEYWORD = {"type": "keyword"}
# Microseconds since 1970: `date` knows milliseconds, `date_nanos` nothing before 1970.
_TIME = {"type": "long"}
_OPEN_END = {"type": "long", "null_value": NEVER}


# Those that the embedded engine passes over as well. The engine's own list is 33 words long, and what a letter says beside them ("I would
# have my") then outweighs what it asks: nDCG@10 of the words alone on long messages .27, of the embedded engine .41.
_STOP_WORDS = """
i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers herself it its itself they them
their theirs themselves what which who whom this that these those am is are was were be been being have has had having do does did doing
a an the and but if or because as until while of at by for with about against between into through during before after above below to
from up down in out on off over under again further then once here there when where why how all any both each few more most other some
such no nor not only own same so than too very s t can will just don should now
"""


@dataclass(frozen=True)
class Bm25:
    """The two constants of BM25."""

    k1: float = 1.2
    b: float = 0.75


def read_alias(kind: Kind, encoder: str) -> str:
    """Return the name under which readers find the index of one kind and encoder."""
    return f"{prefix(kind)}{encoder}-read"


def write_alias(kind: Kind, encoder: str) -> str:
    """Return the name under which the writer finds it."""
    return f"{prefix(kind)}{encoder}-write"


def physical(kind: Kind, encoder: str) -> str:
    """Return the name of the index itself; the number leaves room for one that takes its aliases."""
    return f"{prefix(kind)}{encoder}-000001"


def prefix(kind: Kind) -> str:
    """Return what the names of all indices of one kind and set of columns begin with."""
    return f"strata-{kind.value}-{SCHEMA_VERSION}-"


@cache
def kind_of(index: str) -> str:
    """Return the kind of what an index holds, by its name."""
    return index.split("-", 2)[1]


def template(kind: Kind, bm25: Bm25) -> dict[str, Any]:
    """Return the index template of one kind: strict columns, words by BM25, vectors by cosine."""
    return {
        "index_patterns": [f"{prefix(kind)}*"],
        "priority": 500,
        "template": {"settings": _settings(bm25), "mappings": {"dynamic": "strict", "properties": _properties()}},
    }


def _settings(bm25: Bm25) -> dict[str, Any]:
    return {
        "index": {
            "knn": True,
            # One shard, and nothing is seen before the writer says so: a commit is visible as a whole or not at all.
            "number_of_shards": 1,
            "auto_expand_replicas": "0-1",
            "refresh_interval": "-1",
            # Covers a write that overtakes a deletion; what comes later meets the row that a deleted document leaves.
            "gc_deletes": "5m",
            # A node that comes back replays what was not flushed, about a millisecond a row, before it answers anybody.
            "translog": {"flush_threshold_size": "16mb"},
            "similarity": {"words": {"type": "BM25", "k1": bm25.k1, "b": bm25.b}},
            "analysis": _analysis(),
        }
    }


def _analysis() -> Mapping[str, Any]:
    return {
        "filter": {
            "possessive": {"type": "stemmer", "language": "possessive_english"},
            "stop_words": {"type": "stop", "stopwords": _STOP_WORDS.split()},
            "stems": {"type": "stemmer", "language": "english"},
        },
        "analyzer": {
            "words": {
                "type": "custom",
                "tokenizer": "standard",
                "filter": ["possessive", "lowercase", "asciifolding", "stop_words", "stems"],
            }
        },
    }


def _properties() -> dict[str, Any]:
    vector = {
        "type": "knn_vector",
        "dimension": DIMENSIONS,
        "space_type": "cosinesimil",
        "method": {"name": "hnsw", "engine": "lucene", "parameters": {"m": 16, "ef_construction": 100}},
    }
    return {
        **dict.fromkeys(("chunk_id", "document_key", "scope", "collection", "version", "tenant", "metadata", "labels"), _KEYWORD),
        **dict.fromkeys(("content_hash", "metadata_hash", "access_hash"), _LISTED),
        # Everything that a hit shows, read without a look at the stored row.
        "payload": {"type": "binary", "doc_values": True},
        "search_text": {"type": "text", "analyzer": "words", "similarity": "words", "index_options": "freqs"},
        "vector": vector,
        "embedded": {"type": "boolean"},
        "label_count": {"type": "integer"},
        **dict.fromkeys(("effective_from", "over_at"), _TIME),
        "position": {"type": "long"},
        **dict.fromkeys(("superseded_at", "expires_at", "withdrawn_at", "closed_position"), _OPEN_END),
        # Rows that are no chunks: the counter of commits, and what is left of a deleted document.
        "deleted_at": _TIME,
    }
