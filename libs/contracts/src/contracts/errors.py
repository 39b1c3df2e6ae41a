"""The catalogue of stable error codes that a client may see, with their HTTP status and wording."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ErrorCode:
    """A code that never changes its meaning."""

    code: str
    http_status: int
    type: str
    message: str


_BAD = "invalid_request_error"
ERRORS: dict[str, ErrorCode] = {
    entry.code: entry
    for entry in (
        ErrorCode("invalid_json", 400, _BAD, "The body is not valid JSON."),
        ErrorCode("invalid_request", 400, _BAD, "A field of the request is missing or wrong."),
        ErrorCode("schema_refused", 400, _BAD, "The JSON Schema is none, reaches outside of itself, or demands what is not supported."),
        ErrorCode("content_policy_violation", 400, _BAD, "The request was refused by policy before a model saw it."),
        ErrorCode("invalid_api_key", 401, "authentication_error", "The key or token is missing, wrong, expired or revoked."),
        ErrorCode("policy_denied", 403, "permission_error", "No model that this conversation may go to can answer."),
        ErrorCode("permission_denied", 403, "permission_error", "The role may not do this."),
        ErrorCode("model_not_found", 404, _BAD, "The model does not exist or may not be used with this key."),
        ErrorCode("not_found", 404, _BAD, "There is nothing here under this name for this key."),
        ErrorCode("idempotency_conflict", 409, _BAD, "The idempotency key was used with another body."),
        ErrorCode("request_too_large", 413, _BAD, "The request is larger than allowed."),
        ErrorCode("document_too_large", 413, _BAD, "The document is larger than allowed."),
        ErrorCode("unsupported_document", 415, _BAD, "Documents of this kind are not read."),
        ErrorCode("unreadable_document", 422, _BAD, "The document is damaged or is not what its name says."),
        ErrorCode("encrypted_document", 422, _BAD, "The document is protected by a password."),
        ErrorCode("document_without_text", 422, _BAD, "There is no text in the document; a scan must be recognised first."),
        ErrorCode("binary_as_text", 422, _BAD, "The document is named as text and holds binary data."),
        ErrorCode("missing_effective_date", 422, _BAD, "A version of an anchored document needs the date from which it holds."),
        ErrorCode("version_conflict", 409, _BAD, "The version would rewrite or blur one that is stored; publish a new one."),
        ErrorCode("fed_collection", 409, _BAD, "A table feeds this collection; change the row there."),
        ErrorCode("context_length_exceeded", 400, _BAD, "The conversation has more tokens than the model can read."),
        ErrorCode("rate_limit_exceeded", 429, "rate_limit_error", "Too many requests or tokens; try again later."),
        ErrorCode("insufficient_quota", 429, "insufficient_quota", "The budget of this tenant is used up."),
        ErrorCode("legal_hold", 409, _BAD, "A legal hold keeps these records; lift it first."),
        ErrorCode("review_claimed", 409, _BAD, "Others have this review to decide now."),
        ErrorCode("review_not_claimed", 409, _BAD, "Claim the review before you decide; a lease ends by itself."),
        ErrorCode("review_decided", 409, _BAD, "The review is decided, or you have decided already."),
        ErrorCode("review_own_request", 403, "permission_error", "Nobody reviews a request of their own."),
        ErrorCode("review_without_draft", 422, _BAD, "There is no draft to approve; write the answer."),
        ErrorCode("review_text_refused", 422, _BAD, "The text may not leave as it is."),
        ErrorCode("webhook_address_refused", 422, _BAD, "Events may not be sent to this address."),
        ErrorCode("webhook_limit_reached", 409, _BAD, "The tenant has as many webhooks as it may have."),
        ErrorCode("webhook_changed", 409, _BAD, "The webhook was changed by somebody else; try again."),
        ErrorCode("webhook_disabled", 409, _BAD, "The webhook is disabled; enable it first."),
        ErrorCode("tool_unknown", 400, _BAD, "The workflow calls a tool that is not declared."),
        ErrorCode("tool_not_allowed", 403, "permission_error", "The role may not use this tool."),
        ErrorCode("tool_arguments_invalid", 422, _BAD, "The arguments of a tool do not match its schema."),
        ErrorCode("tool_failed", 502, "server_error", "A tool failed."),
        ErrorCode("tool_timeout", 504, "server_error", "A tool did not answer in time."),
        ErrorCode("output_blocked", 500, "server_error", "The answer could not be released."),
        ErrorCode("budget_exceeded", 429, "insufficient_quota", "The budget of this request is used up."),
        ErrorCode("deadline_exceeded", 504, "server_error", "The request did not finish within its deadline."),
        ErrorCode("engine_overloaded", 503, "server_error", "No model can take the request now; try again."),
        ErrorCode("service_unavailable", 503, "server_error", "A part of the system does not answer; try again."),
        ErrorCode("check_failed", 503, "server_error", "A check gave no result; try again."),
        ErrorCode("stopped", 503, "server_error", "An operator has stopped this; it is refused until the stop is lifted."),
        ErrorCode("already_stopped", 409, _BAD, "This is stopped already."),
        ErrorCode("second_person_required", 403, "permission_error", "Whoever set a stop cannot lift it; somebody else must."),
        ErrorCode("knowledge_behind", 503, "server_error", "The index has not come as far as the request demands; try again."),
        ErrorCode("audit_unavailable", 503, "server_error", "The audit log cannot be written, so nothing is accepted."),
        ErrorCode("release_invalid", 502, "server_error", "An answer without a valid release was refused."),
        ErrorCode("internal_error", 500, "server_error", "Something went wrong inside."),
    )
}


def known(code: str) -> ErrorCode:
    """Return the entry of `code`, or that of `internal_error` for one that is not in the catalogue."""
    return ERRORS.get(code, ERRORS["internal_error"])
