"""Who may do what on the bus, read from the rights that the server is given."""

from contracts.identities import SERVICES, permissions
from contracts.streams import GUARDRAIL_ERASURES, ORCHESTRATOR_ERASURES, REVIEW_ERASURES
from contracts.subjects import ERASURE

HOLDERS = {"orchestrator": ORCHESTRATOR_ERASURES, "review": REVIEW_ERASURES, "guardrail": GUARDRAIL_ERASURES}


def test_audit_alone_orders_an_erasure_and_each_holder_alone_reads_its_own_and_says_that_it_is_done() -> None:
    """No other service may publish an order, take another's from the stream, or put on record that another has erased."""
    rights = {identity.name: permissions(identity)["publish"] for identity in SERVICES}

    assert [name for name, allowed in rights.items() if ERASURE.pattern in allowed] == ["audit"]
    assert not [
        name for name, allowed in rights.items() if any(one.startswith("strata.v1.erasure.") for one in allowed) and name != "audit"
    ]
    for holder, durable in HOLDERS.items():
        assert durable.filter_subject == ERASURE.at(tenant="t", holder=holder).replace(".t.", ".*.")
        for needed in (f"$JS.API.CONSUMER.MSG.NEXT.ERASURES.{durable.name}", f"strata.v1.audit.*.erased_{holder}"):
            assert [name for name, allowed in rights.items() if needed in allowed] == [holder]
