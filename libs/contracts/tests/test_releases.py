"""What the gateway believes: nothing that was not signed for exactly this request."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from contracts import keys
from contracts.identities import SERVICES, permissions, tenant_permissions
from contracts.releases import ReleaseInvalidError, sign, verify
from contracts.subjects import RESPONSE, InvalidTokenError
from strata.gateway.v1.gateway_events_pb2 import ToolCall
from strata.guardrail.v1.guardrail_service_pb2 import Release, ReleaseClaims

_KEY = Ed25519PrivateKey.generate()
_KEYS = {"k1": _KEY.public_key()}
_ABOUT = {"request_id": "r1", "trace_id": "t1", "tenant": "acme"}


def _release(text: str = "hello") -> Release:
    return sign(_KEY, "k1", ReleaseClaims(**_ABOUT, sequence=0, final=True, status="completed"), text, [ToolCall(id="c", name="f")])


@given(st.text(max_size=200))
def test_what_was_signed_is_accepted(text: str) -> None:
    """Any text survives the round trip with its claims."""
    claims = verify(_KEYS, _release(text), **_ABOUT)

    assert (claims.sequence, claims.final, claims.status) == (0, True, "completed")


@pytest.mark.parametrize(
    "change",
    [
        lambda r: setattr(r, "text", r.text + "!"),
        lambda r: setattr(r, "signature", bytes(64)),
        lambda r: setattr(r, "key_id", "k2"),
        lambda r: setattr(r, "claims", ReleaseClaims(**_ABOUT, sequence=1, final=True).SerializeToString()),
        lambda r: r.tool_calls.add(name="rm"),
        lambda r: r.ClearField("tool_calls"),
    ],
)
def test_any_change_is_refused(change) -> None:
    """Text, signature, key, claims and tool calls are all covered."""
    release = _release()
    change(release)

    with pytest.raises(ReleaseInvalidError):
        verify(_KEYS, release, **_ABOUT)


@pytest.mark.parametrize("field", ["request_id", "trace_id", "tenant"])
def test_a_release_of_another_request_is_refused(field: str) -> None:
    """A genuine release cannot be replayed for someone else."""
    with pytest.raises(ReleaseInvalidError):
        verify(_KEYS, _release(), **{**_ABOUT, field: "other"})


@pytest.mark.parametrize("tenant", ["*", ">", "a.b", "a b", "", "A", "x" * 65, "-a", "a\n"])
def test_a_name_that_could_widen_a_subject_is_refused(tenant: str) -> None:
    """Wildcards, dots and spaces never reach a subject."""
    with pytest.raises(InvalidTokenError):
        RESPONSE.at(tenant=tenant, request_id="r1")


def test_only_the_gateway_admits_and_only_guardrail_escalates() -> None:
    """Least privilege: who may publish what is decided in one table."""
    may = {identity.name: permissions(identity)["publish"] for identity in SERVICES}

    assert [name for name, subjects in may.items() if "strata.v1.admitted.*.*" in subjects] == ["gateway"]
    assert [name for name, subjects in may.items() if "strata.v1.escalation.*.*" in subjects] == ["guardrail"]
    assert all(">" not in subjects for subjects in may.values())
    assert not any("acme2" in subject for group in tenant_permissions("acme", "u").values() for subject in group)


def test_a_key_matches_its_own_digest_alone() -> None:
    """What is stored says nothing about the secret, and only the secret fits it."""
    made, other = keys.new_key(), keys.new_key()
    parsed = keys.parse(made.plain)

    assert parsed is not None
    assert keys.matches(*parsed, made.digest)
    assert not keys.matches(*parsed, other.digest)
    assert parsed[1] not in made.digest
    assert keys.parse("sk-strata-short") is None
