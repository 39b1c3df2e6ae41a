"""Everything an operator may change about retriever."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

from chassis.settings import ServiceSettings
from knowledge.backends import BackendSettings
from retriever.weighting import RerankSettings, SentenceWeights, VariantSettings

Fusion = Literal["min_max", "rrf"]


class Weights(BaseModel):
    """How much each leg counts for chunks of one kind of collection."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lexical: NonNegativeFloat = Field(default=0.5, description="Weight of BM25.")
    vector: NonNegativeFloat = Field(default=0.5, description="Weight of the cosine.")


class CollectionRanking(BaseModel):
    """How one collection is ranked where that differs from the others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fusion: Fusion | None = Field(default=None, description="`min_max` or `rrf`; a query over several that differ takes the service's.")
    weights: Weights | None = Field(default=None, description="Weights of the legs; absent takes those of its kind.")
    relevance_threshold: float | None = Field(default=None, description="Least relevance of its passages.")


class RankingSettings(BaseModel):
    """How legs become one ranking, and what is good enough to be an answer's ground."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fluid: Weights = Field(default_factory=Weights, description="Weights for fluid collections.")
    anchored: Weights = Field(default_factory=Weights, description="Weights for anchored collections.")
    fusion: Fusion = Field(
        default="min_max", description="How legs become one ranking: `min_max` of their scores, or `rrf`, which looks at places alone."
    )
    collections: dict[str, CollectionRanking] = Field(
        default_factory=dict, description="By collection: what differs; wins over what its domain declares."
    )
    candidates: PositiveInt = Field(default=100, description="Chunks that each leg contributes.")
    rerank: RerankSettings = Field(default_factory=RerankSettings, description="How candidates are ordered again.")
    variants: VariantSettings = Field(default_factory=VariantSettings, description="Queries beside the query, where a workflow asks.")
    sentences: SentenceWeights = Field(default_factory=SentenceWeights, description="Which sentences compression keeps.")
    expand_tokens: dict[str, PositiveInt] = Field(
        default_factory=dict, description="By collection: most tokens of a passage with its neighbours; a workflow's own wins."
    )
    expand_budget_ms: PositiveFloat = Field(
        default=200.0, description="Longest time to read neighbours; over it passages stay as they are."
    )
    half_life_days: dict[str, PositiveFloat] = Field(
        default_factory=dict, description="By collection: age at which half of `recency_weight` is lost."
    )
    recency_weight: float = Field(default=0.3, ge=0, le=1, description="Largest share of its score that an old chunk loses.")
    most_words: PositiveInt | None = Field(default=None, description="Most words of all passages together; none is no limit.")
    best_at_edges: bool = Field(default=False, description="Whether the best passages come first and last instead of first.")
    relevance_threshold: float = Field(default=0.43, description="Least relevance (cosine plus coverage) of a passage.")
    coverage_weight: NonNegativeFloat = Field(default=0.25, description="Weight of the share of the query's words that a chunk has.")
    coverage_alone_weight: NonNegativeFloat = Field(default=0.6, description="The same for a chunk that has no vector yet.")
    chunks_per_document: PositiveInt = Field(default=2, description="Most passages of one document.")
    default_top_k: PositiveInt = Field(default=4, description="Passages when the caller names no number.")
    largest_top_k: PositiveInt = Field(default=50, description="Most passages that a caller may ask for.")


class Settings(ServiceSettings):
    """Read from `STRATA_RETRIEVER_*`; frozen once read."""

    model_config = SettingsConfigDict(env_nested_delimiter="__", frozen=True, extra="forbid", env_prefix="STRATA_RETRIEVER_")

    knowledge: BackendSettings = Field(default_factory=BackendSettings, description="Engine of the indexes.")
    encoder_threads: PositiveInt = Field(default=1, description="Threads that encode one query.")
    threads: PositiveInt = Field(default=16, description="Threads that search, so that as many queries wait for the engine at once.")
    poll_seconds: PositiveFloat = Field(default=0.5, description="Longest time between two looks at the index's version.")
    ask_seconds: PositiveFloat = Field(default=5.0, description="Time between two questions to ingestor how far its sources are.")
    longest_wait_seconds: PositiveFloat = Field(default=10.0, description="Longest wait for a place in a source that a query demands.")
    longest_query_characters: PositiveInt = Field(default=20_000, description="Longest query that is taken.")
    ranking: RankingSettings = Field(default_factory=RankingSettings, description="How passages are ranked and chosen.")
