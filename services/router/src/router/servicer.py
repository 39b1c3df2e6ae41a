"""gRPC in: translates, and leaves the decision to the domain."""

from concurrent.futures import Executor

from chassis.errors import InvalidArgumentError
from chassis.rpc import Context
from router import wire
from router.routing import Router
from strata.router.v1.router_service_pb2 import RouteRequest, RouteResponse
from strata.router.v1.router_service_pb2_grpc import RouterServiceServicer


class RouterServicer(RouterServiceServicer):
    """Answers the one question of the contract."""

    def __init__(self, router: Router, pool: Executor) -> None:
        """Run classifiers in `pool`."""
        self._router, self._pool = router, pool

    async def Route(self, request: RouteRequest, context: Context) -> RouteResponse:  # type: ignore[override]  # noqa: N802
        """Route one message within the caller's deadline."""
        del context
        if not request.text.strip():
            raise InvalidArgumentError("text is empty")
        return wire.to_response(await self._router.route(wire.to_ask(request), self._pool))
