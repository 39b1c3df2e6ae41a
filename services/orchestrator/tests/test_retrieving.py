"""Options of a retrieve step: what the retriever is asked, what a hypothesis costs, and what the answer says about it."""

import pytest

from orchestrator import catalogue
from orchestrator.workflows import WorkflowError

from .conftest import Stack

GUESSING = """
    budget: {model_calls: 2, tool_calls: 0, output_tokens: 300}
    steps:
      - {id: input, kind: screen}
      - {id: guess, kind: hypothesis, needs: [input], task: answer@v1, tier: small, max_tokens: 40, timeout_seconds: 60}
      - id: passages
        kind: retrieve
        needs: [guess]
        collections: [rules]
        rewrite: question
        multi_query: {queries: 3, budget_ms: 250}
        hypothesis: guess
        expand: {max_tokens: 600}
        compress: {max_tokens: 120, keep_ratio: 0.5}
      - {id: answer, kind: generate, needs: [passages], task: answer@v1, tier: small}
      - {id: release, kind: release, needs: [answer], from: [answer]}
    """


async def test_a_step_passes_its_options_on(stack: Stack) -> None:
    """The hypothesis is searched and told to nobody; a rerank that was skipped is in the answer and in the trace."""
    stack.write_workflow("guessing", GUESSING)
    stack.script.outcomes = {"rerank": "skipped", "compress": "done"}
    async with stack.orchestrator():
        await stack.ask("r1", workflow="guessing")
        (window,) = await stack.answer("r1")
    (asked,) = stack.script.requests["Retrieve"]
    assert (asked.multi_query.queries, asked.multi_query.budget_ms, asked.expand.max_tokens) == (3, 250, 600)
    assert (asked.compress.max_tokens, asked.compress.keep_ratio, asked.rewrite) == (120, 0.5, "question")
    assert list(asked.hypotheses) == ["Goods can be returned within 30 days [1]."]
    done = window.completion
    assert dict(done.retrieval) == {"rerank": "skipped", "compress": "done"}
    assert [(span.start, span.end) for span in done.citations[0].spans] == [(0, 0)]
    details = {record.step_id: dict(record.details) for record in await stack.audit("r1")}
    assert dict(details["passages"]["outcomes"])["rerank"] == "skipped"
    assert "text" not in details["guess"]


@pytest.mark.parametrize(("failing", "delay", "code"), [(1, 0.0, "service_unavailable"), (0, 1.0, "deadline_exceeded")])
async def test_a_hypothesis_never_costs_the_answer(stack: Stack, failing: int, delay: float, code: str) -> None:
    """A model that is away or slower than the step's deadline leaves the search without a hypothesis."""
    stack.write_workflow("guessing", GUESSING.replace("timeout_seconds: 60", "timeout_seconds: 0.4") if delay else GUESSING)
    stack.script.failing["Generate"], stack.script.delays["Generate"] = failing, delay
    async with stack.orchestrator():
        await stack.ask("r1", workflow="guessing")
        (window,) = await stack.answer("r1")
    assert window.completion.status == "completed"
    assert list(stack.script.requests["Retrieve"][0].hypotheses) == []
    (guess,) = [record for record in await stack.audit("r1") if record.step_id == "guess"]
    assert (guess.outcome, guess.code) == ("succeeded", code)


async def test_a_hypothesis_has_to_be_needed(stack: Stack) -> None:
    """A step that takes a hypothesis from one that may not be over yet is refused at the start."""
    stack.write_workflow("guessing", GUESSING.replace("hypothesis: guess", "hypothesis: later"))
    with pytest.raises(WorkflowError, match="takes its hypothesis from 'later'"):
        catalogue.load(stack.repository)
