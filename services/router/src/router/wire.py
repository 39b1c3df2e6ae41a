"""Between the domain and protobuf."""

from collections.abc import Mapping

from google.protobuf.json_format import MessageToDict

from router.routing import Ask, Route
from strata.router.v1.router_service_pb2 import LabelScore, RouteRequest, RouteResponse


def to_ask(request: RouteRequest) -> Ask:
    """Return what a request asks."""
    caller = request.caller
    return Ask(
        text=request.text,
        caller={
            "tenant": caller.tenant,
            "role": caller.role,
            "user": caller.user,
            "permissions": list(caller.permissions),
            "labels": list(caller.labels),
        },
        domain=request.domain,
        context=MessageToDict(request.context),
        tier=request.tier,
        adapter=request.adapter,
    )


def _to_scores(shares: Mapping[str, float]) -> list[LabelScore]:
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return [LabelScore(label=label, probability=share) for label, share in ordered]


def to_response(route: Route) -> RouteResponse:
    """Return the decision with all scores, most probable first."""
    response = RouteResponse(
        request_class=route.request_class.label,
        confidence=route.request_class.confidence,
        classes=_to_scores(route.request_class.probabilities),
        tier=route.tier,
        task=route.task,
        adapter=route.adapter,
        policy_ids=route.policy_ids,
        deadline_class=route.deadline_class,
        versions=route.versions,
    )
    if route.intent is not None:
        response.intent = route.intent.label
        response.intent_confidence = route.intent.confidence
        response.intents.extend(_to_scores(route.intent.probabilities))
    return response
