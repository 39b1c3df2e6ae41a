"""Decides texts as the service would once they are screened, so that a swap of names can be seen to change nothing."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from chassis.policy import Escalation, RuleFailedError, load_policies
from chassis.settings import load as load_settings
from router.main import create_router
from router.routing import Ask, Router
from router.settings import Settings


@cache
def _router() -> Router:
    return create_router(load_settings(Settings))


async def _route(texts: Sequence[str], domain: str) -> list[dict[str, str]]:
    policy = load_policies(load_settings(Settings).repository_dir / "domains")[domain]
    decisions = []
    with ThreadPoolExecutor(1) as pool:
        for text in texts:
            route = await _router().route(Ask(text, caller={"tenant": "fairness", "role": ""}, domain=domain), pool)
            intent = route.intent.label if route.intent else ""
            routed = {"request_class": route.request_class.label, "intent": intent, "tier": route.tier}
            facts: dict[str, object] = {"route": routed, "context": {}, "caller": {}}
            fired = [rule.id for rule in policy.escalation if _holds(rule, facts)]
            decisions.append({"route": f"{route.request_class.label}/{route.tier}", "triage": f"{intent}/{','.join(fired)}"})
    return decisions


def _holds(rule: Escalation, facts: dict[str, object]) -> bool:
    try:
        return rule.holds(facts)
    except RuleFailedError:
        # As in guardrail: who cannot be judged goes to a person.
        return True


def decide(texts: Sequence[str], domain: str) -> list[dict[str, str]]:
    """Return route (class and tier) and triage (intent and the escalation rules that fire) of each text."""
    return asyncio.run(_route(texts, domain))
