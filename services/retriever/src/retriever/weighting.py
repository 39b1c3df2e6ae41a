"""How much each signal of a ranking counts, and what reranking may cost."""

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt


class SignalWeights(BaseModel):
    """How much each signal counts; `models/reranker` says how they were chosen and measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lexical: NonNegativeFloat = Field(default=0.5, description="BM25.")
    vector: NonNegativeFloat = Field(default=0.5, description="Cosine.")
    title_coverage: NonNegativeFloat = Field(default=0.1, description="Share of the title that the query says.")
    title_said: NonNegativeFloat = Field(default=0.1, description="The same squared: the query says the title in full.")
    title_match: NonNegativeFloat = Field(default=0.0, description="How much of the query the title has.")
    pairs: NonNegativeFloat = Field(default=0.05, description="Neighbouring words of the query that are neighbours in the text.")
    figures: NonNegativeFloat = Field(default=0.1, description="Share of the query's words with digits.")


class RerankSettings(BaseModel):
    """Whether and how candidates are ordered again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(default=True, description="Whether candidates are reranked.")
    except_collections: frozenset[str] = Field(default=frozenset(), description="A query over one of these keeps the fused order.")
    budget_ms: PositiveFloat = Field(default=1000.0, description="Longest time; over it the fused order stands.")
    candidates: PositiveInt = Field(default=200, description="Best fused candidates that are reranked.")
    saturation: NonNegativeFloat = Field(default=0.9, description="k1 of BM25.")
    length: NonNegativeFloat = Field(default=0.4, description="b of BM25.")
    query: SignalWeights = Field(default_factory=SignalWeights, description="Weights for a question.")
    message: SignalWeights = Field(
        default_factory=lambda: SignalWeights(vector=0.3, pairs=0.3, title_match=0.2), description="Weights for a long message."
    )
    query_words: PositiveInt = Field(default=20, description="Most words, without stop words, of a question.")
    message_words: PositiveInt = Field(default=60, description="Fewest words of a long message; between the two, weights are mixed.")


class SentenceWeights(BaseModel):
    """What makes a sentence of a passage worth keeping."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lexical: NonNegativeFloat = Field(default=0.5, description="Share of the query's words, by how few sentences have them.")
    vector: NonNegativeFloat = Field(default=1.0, description="Cosine; 0 embeds nothing.")


class VariantSettings(BaseModel):
    """What parts of a message and texts that an answer might read like count beside the query itself, and may cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: NonNegativeFloat = Field(default=0.5, description="Weight of the best variant's score; the query's own is 1.")
    budget_ms: PositiveFloat = Field(default=300.0, description="Longest time; variants that are not back by then are left out.")
    most: PositiveInt = Field(default=8, description="Most variants of one query, whoever asks for more.")
