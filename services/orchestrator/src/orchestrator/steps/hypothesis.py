"""Has a model write what an answer might read like, for retrieval to search; nobody ever sees that text."""

from chassis.errors import ServiceError
from orchestrator.generation import plan, produce
from orchestrator.runs import Outcome, Run
from orchestrator.workflows import Step

# The engine ends a run whose step is late, so the model has a little less.
_SHARE = 0.9


async def hypothesis(run: Run, step: Step) -> Outcome:
    """Generate within the step's own deadline; whatever goes wrong costs the hypothesis and never the answer."""
    try:
        made = await produce(run, plan(run, step), timeout=_SHARE * run.timeout(step))
    except ServiceError as error:
        return Outcome({"text": "", "skipped": error.code}, code=error.code, details={"skipped": error.code})
    kept = ("model", "prompt", "prompt_tokens", "completion_tokens", "cost_usd")
    return Outcome({"text": made["text"], **{name: made[name] for name in kept}}, details={name: made[name] for name in kept})
