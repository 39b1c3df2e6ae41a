"""Why a call did not run, each with the stable code that a client sees."""

from chassis.errors import DeadlineError, InternalError, InvalidArgumentError, NotFoundError, PermissionDeniedError, UnavailableError


class ToolUnknownError(NotFoundError):
    """No domain declares the tool."""

    default_code = "tool_unknown"


class ToolNotAllowedError(PermissionDeniedError):
    """The role is not on the tool's allowlist."""

    default_code = "tool_not_allowed"


class ToolArgumentsError(InvalidArgumentError):
    """The arguments do not match the tool's schema."""

    default_code = "tool_arguments_invalid"


class ToolTimeoutError(DeadlineError):
    """The tool did not finish in its time."""

    default_code = "tool_timeout"


class ToolFailedError(InternalError):
    """The tool broke while it ran."""

    default_code = "tool_failed"


class ToolRestingError(UnavailableError):
    """The tool failed so often that it is left alone for a while."""

    default_code = "tool_failed"
