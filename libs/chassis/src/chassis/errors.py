"""One tree of errors, named after gRPC's status codes; each boundary maps them once.

ServiceError
├── InvalidArgumentError      the caller's fault, never retried
├── UnauthenticatedError
├── PermissionDeniedError
├── NotFoundError
├── FailedPreconditionError   the caller must change something first
├── ConflictError             somebody else was faster; the caller's state is stale
├── ResourceExhaustedError    a limit; retry later
├── DeadlineError             time is up
├── UnavailableError          a dependency does not answer; retried
└── InternalError             a bug or broken data
"""

from typing import ClassVar

from grpc import StatusCode


class ServiceError(Exception):
    """An error with a stable `code`, a gRPC status, and whether a repeat may help."""

    status: ClassVar[StatusCode] = StatusCode.INTERNAL
    retryable: ClassVar[bool] = False
    default_code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        """Keep the message for people and the code for programs."""
        super().__init__(message)
        self.code = code or self.default_code


class InvalidArgumentError(ServiceError):
    """What was asked is malformed."""

    status = StatusCode.INVALID_ARGUMENT
    default_code = "invalid_request"


class UnauthenticatedError(ServiceError):
    """Nobody knows who asks."""

    status = StatusCode.UNAUTHENTICATED
    default_code = "invalid_api_key"


class PermissionDeniedError(ServiceError):
    """Who asks may not do this."""

    status = StatusCode.PERMISSION_DENIED
    default_code = "permission_denied"


class NotFoundError(ServiceError):
    """There is nothing under this name for who asks."""

    status = StatusCode.NOT_FOUND
    default_code = "not_found"


class FailedPreconditionError(ServiceError):
    """Something must be put in order first."""

    status = StatusCode.FAILED_PRECONDITION
    default_code = "invalid_request"


class ConflictError(ServiceError):
    """The state that the caller built on has changed."""

    status = StatusCode.ABORTED
    default_code = "idempotency_conflict"


class ResourceExhaustedError(ServiceError):
    """A limit is reached."""

    status = StatusCode.RESOURCE_EXHAUSTED
    retryable = True
    default_code = "rate_limit_exceeded"


class DeadlineError(ServiceError):
    """The time is up."""

    status = StatusCode.DEADLINE_EXCEEDED
    default_code = "deadline_exceeded"


class UnavailableError(ServiceError):
    """A dependency does not answer."""

    status = StatusCode.UNAVAILABLE
    retryable = True
    default_code = "service_unavailable"


class InternalError(ServiceError):
    """A bug, or data that should not exist."""


BY_STATUS: dict[StatusCode, type[ServiceError]] = {
    cls.status: cls
    for cls in (
        InvalidArgumentError,
        UnauthenticatedError,
        PermissionDeniedError,
        NotFoundError,
        FailedPreconditionError,
        ConflictError,
        ResourceExhaustedError,
        DeadlineError,
        UnavailableError,
        InternalError,
    )
}
