"""An answer without a model: a text with the results of steps in it."""

from orchestrator.runs import Outcome, Run
from orchestrator.workflows import Step


async def template(run: Run, step: Step) -> Outcome:
    """Render the step's text."""
    status = step.spec.get("status", "completed")
    return Outcome({"text": step.texts["text"].render(run.scope()).strip(), "status": status}, details={"status": status})
