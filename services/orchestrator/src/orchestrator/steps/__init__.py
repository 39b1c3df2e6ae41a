"""The kinds of steps a workflow may have."""

from collections.abc import Mapping

from orchestrator.engine import Kind
from orchestrator.steps.escalate import escalate
from orchestrator.steps.generate import generate
from orchestrator.steps.hypothesis import hypothesis
from orchestrator.steps.release import release
from orchestrator.steps.retrieve import retrieve
from orchestrator.steps.route import route
from orchestrator.steps.screen import screen
from orchestrator.steps.template import template
from orchestrator.steps.tool import tool

STEP_KINDS: Mapping[str, Kind] = {
    "screen": screen,
    "route": route,
    "hypothesis": hypothesis,
    "retrieve": retrieve,
    "tool": tool,
    "generate": generate,
    "template": template,
    "escalate": escalate,
    "release": release,
}
