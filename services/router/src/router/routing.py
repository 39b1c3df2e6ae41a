"""The decision itself: two classifiers, then what the client named, then what the business declared."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any

from prometheus_client import Counter

from chassis.errors import InvalidArgumentError, NotFoundError
from chassis.logging import get_logger
from chassis.policy import Policy, RuleFailedError
from encoders import Encoder, Prediction
from encoders.people import without_names
from router.domains import Domain, Head

log = get_logger("router")
ROUTED = Counter("strata_router_routed_total", "Requests by class, intent and tier.", ["request_class", "intent", "tier"])
RULE_ERRORS = Counter("strata_router_rule_errors_total", "Policy overrides whose expression failed.", ["rule"])
TIERS = ("small", "mid", "large", "reasoning")
_COMPLEX = "high_ambiguity_reasoning"
_LOOKUP = "simple_lookup"


@dataclass(frozen=True)
class Ask:
    """One message with what policy may look at; `tier` and `adapter` are what the client named."""

    text: str
    caller: Mapping[str, Any]
    domain: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)
    tier: str = ""
    adapter: str = ""


@dataclass(frozen=True)
class Route:
    """How a request is served, and why."""

    request_class: Prediction
    intent: Prediction | None
    tier: str
    adapter: str = ""
    task: str = ""
    policy_ids: tuple[str, ...] = ()
    deadline_class: str = "standard"
    versions: Mapping[str, str] = field(default_factory=dict)


class Router:
    """Classifies and applies policy; safe to call concurrently."""

    def __init__(
        self,
        encoder: Encoder,
        classes: Head,
        domains: Mapping[str, Domain],
        *,
        tiers: Mapping[str, str],
        simple_intents: frozenset[str],
        max_characters: int,
    ) -> None:
        """Hold weights and policies that were read already."""
        self._encoder, self._classes, self._domains = encoder, classes, domains
        self._tiers, self._simple, self._longest = tiers, simple_intents, max_characters

    async def route(self, ask: Ask, pool: Executor) -> Route:
        """Decide; raise InvalidArgumentError or NotFoundError for what cannot be routed."""
        if ask.tier and ask.tier not in TIERS:
            raise InvalidArgumentError(f"unknown tier {ask.tier!r}; known: {list(TIERS)}", code="tier_not_found")
        domain = self._domain(ask.domain)
        loop = asyncio.get_running_loop()
        request_class, intent = await loop.run_in_executor(pool, self.classify, ask.text, domain)
        route = Route(
            request_class=request_class,
            intent=intent,
            tier=ask.tier or self._tiers.get(request_class.label, "small"),
            adapter=ask.adapter,
            deadline_class=self._deadline_class(request_class.label, intent.label if intent else ""),
            versions=self._versions(domain),
        )
        decided = apply_policy(route, ask, domain.policy) if domain else route
        ROUTED.labels(request_class=request_class.label, intent=intent.label if intent else "", tier=decided.tier).inc()
        return decided

    def _domain(self, name: str) -> Domain | None:
        if not name:
            return None
        if name not in self._domains:
            raise NotFoundError(f"unknown domain {name!r}; known: {sorted(self._domains)}", code="domain_not_found")
        return self._domains[name]

    def classify(self, text: str, domain: Domain | None) -> tuple[Prediction, Prediction | None]:
        """Return class and intent of `text`, the same for all names in it; it is encoded once for both."""
        texts = [without_names(text[: self._longest])]
        vectors = self._encoder.encode(texts)
        request_class = self._classes.classifier.predict(texts, vectors)[0]
        intent = domain.intents.classifier.predict(texts, vectors)[0] if domain and domain.intents else None
        return request_class, intent

    def _deadline_class(self, request_class: str, intent: str) -> str:
        if intent in self._simple or (not intent and request_class == _LOOKUP):
            return "administrative"
        return "complex" if request_class == _COMPLEX else "standard"

    def _versions(self, domain: Domain | None) -> dict[str, str]:
        versions = {"encoder": self._encoder.identity.key(), "request_class": self._classes.version}
        if domain:
            versions["policy"] = domain.policy.version
            if domain.intents:
                versions["intent"] = domain.intents.version
        return versions


def apply_policy(route: Route, ask: Ask, policy: Policy) -> Route:
    """Return `route` with every override that holds, in the file's order; a later one sees and wins over an earlier one."""
    for rule in policy.overrides:
        try:
            holds = rule.holds({"caller": ask.caller, "context": ask.context, "route": _facts(route)})
        except RuleFailedError as error:
            # An override is a preference: without it the request is still served.
            RULE_ERRORS.labels(rule=rule.id).inc()
            log.warning("override_failed", rule=rule.id, error=str(error))
            continue
        if holds:
            changes = {key: value for key, value in rule.set.model_dump().items() if value}
            route = replace(route, **changes, policy_ids=(*route.policy_ids, rule.id))
    return route


def _facts(route: Route) -> dict[str, Any]:
    return {
        "request_class": route.request_class.label,
        "confidence": route.request_class.confidence,
        "intent": route.intent.label if route.intent else "",
        "intent_confidence": route.intent.confidence if route.intent else 0.0,
        "tier": route.tier,
        "adapter": route.adapter,
        "task": route.task,
        "deadline_class": route.deadline_class,
    }
