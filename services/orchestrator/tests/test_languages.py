"""What a step declares about the language of its text is what guardrail is asked."""

from strata.guardrail.v1 import guardrail_service_pb2 as guard

from .conftest import Stack

SPEAKING = """
    budget: {{model_calls: 2, tool_calls: 0, output_tokens: 300}}
    steps:
      - {{id: input, kind: screen}}
      - {{id: answer, kind: generate, needs: [input], task: chat@v1, tier: small{more}}}
      - {{id: release, kind: release, needs: [answer], from: [answer]}}
    """


async def test_a_step_declares_the_language_and_what_follows(stack: Stack) -> None:
    """A fixed language, that of the question, or none; without an action it is only reported."""
    for name, more in (("fixed", ", language: de, on_language: block"), ("same", ", language: request"), ("free", "")):
        stack.write_workflow(name, SPEAKING.format(more=more))
    async with stack.orchestrator():
        for name in ("fixed", "same", "free"):
            await stack.ask(name, workflow=name, stream=True)
            await stack.answer(name)
    asked = {(request.request_id, request.language, request.language_decision) for request in stack.script.requests["CheckOutput"]}
    assert asked == {
        ("fixed", "de", guard.DECISION_BLOCK),
        ("same", "fr", guard.DECISION_ALLOW),
        ("free", "", guard.DECISION_UNSPECIFIED),
    }
