"""What a workflow may ask of one search, beside the query; all of it is off by default."""

from dataclasses import dataclass, field

from retriever.compression import Compress

DONE, OFF, SKIPPED = "done", "off", "skipped"


@dataclass(frozen=True)
class Window:
    """How long a passage may be in words, and what its sentences should match."""

    words: int
    focus: str = ""


@dataclass(frozen=True)
class Options:
    """How one query is searched and what becomes of its passages."""

    window: Window | None = None
    # What compression should match; empty takes the query.
    focus: str = ""
    compress: Compress | None = None
    # question or terms; empty searches the query as it is.
    rewrite: str = ""
    # Most parts of a long message that are searched beside it, and their budget; 0 takes the settings' own.
    parts: int = 0
    variants_ms: float = 0.0
    hypotheses: tuple[str, ...] = ()
    # Most tokens of a passage with its neighbours; 0 takes what the settings say of its collection.
    expand_tokens: int = 0


@dataclass
class Report:
    """What became of each optional part (done, off, skipped), how many queries were searched, and what compression saved."""

    outcomes: dict[str, str] = field(default_factory=dict)
    queries: int = 1
    tokens_before: int = 0
    tokens_after: int = 0
