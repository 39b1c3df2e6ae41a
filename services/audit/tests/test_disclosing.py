"""Receipts, evidence, lookups and erasure, each checked as those who get them do."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from audit import disclosing, governing, searching
from audit.erasing import Traces
from audit.ledger import Ledger
from audit.segments import list_segments
from audit.terms import terms, unnamed
from audit.verification import verify
from chassis.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError, PermissionDeniedError
from evidence import bundles, receipts
from evidence.records import canonical, encoded, opened
from strata.audit.v1.audit_service_pb2 import GetEvidenceResponse, SearchRecordsRequest
from strata.gateway.v1.gateway_events_pb2 import Caller
from tlog.notes import parse_verifier

from .conftest import received
from .story import records

TEXT = b"Take one tablet a day."
DIGEST = hashlib.sha256(TEXT).hexdigest()
ANN = Caller(tenant="acme", role="app", user="ann", key_id="k-ann")
BOB = Caller(tenant="acme", role="app", user="bob", key_id="k-bob")
AUDITOR = Caller(tenant="acme", role="auditor", user="eve", permissions=["trace:read", "audit:read", "audit:erase"])


@pytest.fixture
def ledger(open_ledger: Callable[..., Ledger]) -> Ledger:
    """A log with one request of ann, one of bob, one of another tenant's ann, and a change of a policy before."""
    found = open_ledger()
    policy = {"domain": "healthcare", "new_sha256": hashlib.sha256(b"policy").hexdigest()}
    found.append([received(1, tenant="system", request="policy-healthcare", step="policy_changed", details=policy)])
    found.append(records(2, request="req_ann", user="ann", text_sha256=DIGEST))
    found.append(records(7, request="req_bob", user="bob", text_sha256="b" * 64))
    found.append(records(12, request="req_other", user="ann", text_sha256="c" * 64, tenant="other"))
    return found


def test_the_requester_gets_a_receipt_that_holds_without_the_log(ledger: Ledger) -> None:
    """The client's file says which text was sent, proves that the log has it, and nothing in it can be changed unnoticed."""
    receipt, _ = disclosing.receipt(ledger, "req_ann", ANN)
    content = canonical(receipt)
    key = parse_verifier(receipt["verifier_key"])

    found = receipts.verify(content, [key], text=TEXT)
    assert found.holds, found.problems
    assert (found.facts["request_id"], found.facts["text_sha256"], found.facts["keys"]) == ("req_ann", DIGEST, "given")
    assert receipts.verify(content).facts["keys"] == "in the file"
    for name, value in {
        "text_sha256": "0" * 64,
        "index": 0,
        "request_id": "req_bob",
        "proof": [],
        "record_key": encoded(bytes(32)),
    }.items():
        assert not receipts.verify(canonical({**receipt, name: value}), [key]).holds, name
    assert receipts.verify(content, [key], text=b"Take two.").problems == ["text: it is not the one that the receipt is for"]


def test_a_receipt_of_another_log_does_not_hold(ledger: Ledger, tmp_path: Path) -> None:
    """Only the key that the verifier was given counts, whatever the file says of itself."""
    from .conftest import new_ledger

    stranger = new_ledger(tmp_path / "stranger")
    stranger.append(records(1, request="req_ann", user="ann", text_sha256=DIGEST))
    forged, cose = disclosing.receipt(stranger, "req_ann", ANN)
    key = parse_verifier(disclosing.receipt(ledger, "req_ann", ANN)[0]["verifier_key"])
    stranger.close()

    assert receipts.verify(canonical(forged)).holds
    assert any(problem.startswith("checkpoint") for problem in receipts.verify(canonical(forged), [key]).problems)
    assert any(problem.startswith("signature") for problem in receipts.verify(cose, [key]).problems)


def test_nobody_else_gets_a_receipt(ledger: Ledger) -> None:
    """Another user, another key and another tenant learn nothing; who may read traces does."""
    same_key = Caller(tenant="acme", user="bob", key_id="k-ann")
    for caller in (BOB, same_key, Caller(tenant="other", user="ann", key_id="k-ann", permissions=["trace:read"])):
        with pytest.raises(NotFoundError):
            disclosing.receipt(ledger, "req_ann", caller)
    assert disclosing.receipt(ledger, "req_ann", AUDITOR)[0]["text_sha256"] == DIGEST


def test_the_cose_form_holds_under_an_independent_verification(ledger: Ledger) -> None:
    """A COSE_Sign1 of RFC 9052, taken apart here by hand, is signed by the log over the canonical receipt."""
    receipt, cose = disclosing.receipt(ledger, "req_ann", ANN)

    tagged = cbor2.loads(cose)
    protected, unprotected, payload, signature = tagged.value
    raw = base64.b64decode(receipt["verifier_key"].split("+", 2)[2])
    to_sign = b"\x84\x6aSignature1" + cbor2.dumps(protected) + b"\x40" + cbor2.dumps(payload)
    Ed25519PublicKey.from_public_bytes(raw[1:]).verify(signature, to_sign)

    assert (tagged.tag, unprotected, json.loads(payload)) == (18, {}, receipt)
    assert cbor2.loads(protected)[1] == -8
    assert receipt["verifier_key"].startswith(cbor2.loads(protected)[4].decode())
    assert receipts.verify(cose, text=TEXT).holds
    assert not receipts.verify(cose[:-1] + bytes([cose[-1] ^ 1])).holds


def test_a_records_key_opens_no_other(ledger: Ledger) -> None:
    """Who is given one record of a user cannot read the next one, though both are sealed for the same person."""
    found = disclosing.of_request(ledger, "req_ann", AUDITOR)
    first, last = found[0], found[-1]

    assert first.leaf.key == last.leaf.key
    assert opened(first.raw, encoded(first.key or b""))["details"] == {"key_id": "k-ann"}
    with pytest.raises(Exception, match="commits"):
        opened(last.raw, encoded(first.key or b""))


def _bundle(path: Path, ledger: Ledger, *, policy: bytes = b"policy", text: bytes | None = None) -> GetEvidenceResponse:
    """Write the bundle of ann's request, signed by the log."""
    found = disclosing.evidence(ledger, "req_ann", AUDITOR)
    rows = [
        {
            "index": one.index,
            "leaf": encoded(one.leaf),
            "proof": [encoded(part) for part in one.proof],
            "record_key": encoded(one.record_key) if one.record_key else None,
            "record": opened(one.leaf, encoded(one.record_key)) if one.record_key else None,
        }
        for one in found.records
    ]
    documents = bundles.retrieved([row["record"] for row in rows if row["record"]])
    files = {
        bundles.CHECKPOINT: found.checkpoint.encode(),
        bundles.KEYS: canonical({"verifier_key": found.verifier_key, "witness_keys": list(found.witness_keys)}),
        bundles.RECORDS: canonical(rows),
        bundles.DOCUMENTS: canonical(documents),
        bundles.POLICIES: canonical([{"domain": "healthcare", "file": "p.yaml", "sha256": hashlib.sha256(policy).hexdigest()}]),
        "p.yaml": policy,
    }
    manifest = bundles.manifest_of("req_ann", "acme", "2026-11-21T08:00:00+00:00", files)
    _, cose = disclosing.sign_manifest(ledger, canonical(manifest), AUDITOR)
    bundles.write(path, files if text is None else {**files, "p.yaml": text}, manifest, cose)
    return found


def test_a_bundle_verifies_on_a_machine_without_the_stack(ledger: Ledger, tmp_path: Path) -> None:
    """One command in a process that knows no state folder and no service checks records, policy and documents."""
    found = _bundle(tmp_path / "b.zip", ledger)
    empty = tmp_path / "elsewhere"
    empty.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STRATA_")}
    program = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] in {'audit', 'gateway', 'nats'}: raise ImportError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from cli.outside import app\n"
        "app()\n"
    )
    command = [sys.executable, "-c", program, "verify-bundle", str(tmp_path / "b.zip"), "--key", found.verifier_key, "--json"]
    done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert (said["holds"], said["request_id"], said["records"], said["erased"]) == (True, "req_ann", 6, 0)
    assert list(empty.iterdir()) == []


def test_what_was_changed_in_a_bundle_is_named(ledger: Ledger, tmp_path: Path) -> None:
    """A file that is not the signed one, a policy that was not in force and a record that was taken out are each called by name."""
    _bundle(tmp_path / "swapped.zip", ledger, text=b"other")
    _bundle(tmp_path / "stale.zip", ledger, policy=b"an older policy")

    swapped, stale = bundles.verify(tmp_path / "swapped.zip"), bundles.verify(tmp_path / "stale.zip")
    assert "p.yaml: not as it was when the bundle was signed" in swapped.problems
    assert "policy of healthcare: the record of its last change names another text" in stale.problems
    (tmp_path / "none.zip").write_bytes(b"PK")
    assert not bundles.verify(tmp_path / "none.zip").holds


def test_a_damaged_file_of_a_bundle_is_named(ledger: Ledger, tmp_path: Path) -> None:
    """Bytes that no longer unpack, and whatever was put before or behind the files, are problems and no crash."""
    path = tmp_path / "b.zip"
    _bundle(path, ledger)
    whole = path.read_bytes()
    for name in (bundles.KEYS, bundles.SIGNED_MANIFEST, bundles.RECORDS, bundles.CHECKPOINT):
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo(name)
        begin = entry.header_offset + 30 + len(name)
        # An end of the compressed data that comes at once, with a type that does not exist.
        path.write_bytes(whole[:begin] + b"\xff" * 4 + whole[begin + 4 :])
        problems = bundles.verify(path).problems
        assert any(problem.startswith(f"{name}: it cannot be read") for problem in problems), problems
        path.write_bytes(whole)
    for added in (whole + b"x", b"x" + whole):
        path.write_bytes(added)
        assert bundles.verify(path).problems == ["bundle: there is something before or behind its files"]
    path.write_bytes(whole)
    assert bundles.verify(path).holds
    assert path.stat().st_mode & 0o777 == 0o600


def _search(ledger: Ledger, caller: Caller = AUDITOR, **asked: Any) -> list[str]:
    found, _ = searching.search(ledger, SearchRecordsRequest(caller=caller, **asked))
    return sorted(logged.record["record_id"] for logged in found)


def test_records_are_found_by_what_they_are_about(ledger: Ledger) -> None:
    """User, document version, adapter, verdict, policy, step and time each find theirs, together within one request."""
    assert _search(ledger, user="ann") == ["req_ann/release", "req_ann/request", "req_ann/response", "req_ann/retrieve"]
    assert _search(ledger, document="nih/aspirin@2026-01", user="bob") == [
        "req_bob/release", "req_bob/request", "req_bob/response", "req_bob/retrieve",
    ]  # fmt: skip
    assert _search(ledger, document="nih/aspirin", step="release") == ["req_ann/release", "req_bob/release"]
    assert _search(ledger, document="nih/asp") == []
    assert _search(ledger, adapter="patient-answer@v1", id="req_bob") == ["req_bob/generate"]
    assert _search(ledger, verdict="allow", user="ann", step="release") == ["req_ann/release"]
    escalated, decided = {"step": "escalate", "code": "urgent_symptom"}, {"step": "review", "details": {"decision": "correct"}}
    assert {value for record in (escalated, decided) for _, value in terms(record, unnamed)} == {"escalate", "urgent_symptom", "correct"}
    assert _search(ledger, since="2026-11-21T08:00:10+00:00") == ["req_bob/release", "req_bob/response"]
    operator = Caller(tenant="operator", permissions=["audit:all"])
    assert _search(ledger, operator, policy="healthcare") == ["policy-healthcare/1"]
    assert _search(ledger, operator, adapter="patient-answer@v1", tenant="other") == ["req_other/generate"]


def test_pages_follow_each_other_and_outlive_a_rebuild(ledger: Ledger) -> None:
    """Every record comes once, newest first; the view that is made anew finds the same."""
    seen, cursor = [], ""
    while True:
        found, cursor = searching.search(ledger, SearchRecordsRequest(caller=AUDITOR, limit=4, cursor=cursor))
        seen += [logged.index for logged in found]
        if not cursor:
            break

    assert seen == list(range(10, 0, -1))
    before = _search(ledger, user="ann")
    assert governing.rebuild(ledger) == ledger.size
    assert _search(ledger, user="ann") == before


@pytest.mark.parametrize(
    ("error", "caller", "asked"),
    [
        (PermissionDeniedError, ANN, {}),
        (PermissionDeniedError, AUDITOR, {"tenant": "other"}),
        (InvalidArgumentError, AUDITOR, {"cursor": "x"}),
        (InvalidArgumentError, AUDITOR, {"since": "yesterday"}),
        (InvalidArgumentError, Caller(permissions=["audit:all"]), {"user": "ann"}),
    ],
)
def test_what_may_not_be_asked_is_refused(ledger: Ledger, error: type[Exception], caller: Caller, asked: dict[str, str]) -> None:
    """Without the permission, outside of the tenant, or malformed: nothing is looked up."""
    with pytest.raises(error):
        _search(ledger, caller, **asked)


def _erase(ledger: Ledger) -> governing.Erased:
    """Erase ann, once everything that is known of her is ordered elsewhere."""
    news = governing.erase(ledger, "acme", "ann", Traces(), open_seconds=60)
    assert isinstance(news, Traces)
    done = governing.erase(ledger, "acme", "ann", news, open_seconds=60)
    assert isinstance(done, governing.Erased)
    return done


def test_an_erased_user_is_unreadable_everywhere_and_all_proofs_hold(ledger: Ledger, folder: Path) -> None:
    """No file of the audit holds what was about ann, nor finds it; her requests are still proven, and bob is as before."""
    erased = _erase(ledger)
    found = disclosing.of_request(ledger, "req_ann", AUDITOR)

    assert erased.requests == 1
    assert erased.keys >= 2
    assert [entry.record for entry in found] == [None] * 5
    assert _search(ledger, user="ann") == []
    assert _search(ledger, adapter="patient-answer@v1") == ["req_bob/generate"]
    assert len(disclosing.of_request(ledger, "req_bob", AUDITOR)) == 5
    assert _search(ledger, Caller(permissions=["audit:all"]), tenant="other", user="ann") != []
    with pytest.raises(NotFoundError, match="not any more"):
        disclosing.receipt(ledger, "req_ann", AUDITOR)
    assert governing.rebuild(ledger) == ledger.size
    assert _search(ledger, user="ann") == []
    assert verify(folder).intact
    evidence = disclosing.evidence(ledger, "req_ann", AUDITOR)
    assert [bool(one.record_key) for one in evidence.records] == [True] + [False] * 5
    assert all(DIGEST.encode() not in path.read_bytes() for path in (*list_segments(folder), folder.parent / "audit_run" / "view.db"))


def test_nothing_is_erased_while_a_hold_is_on(ledger: Ledger) -> None:
    """A hold of the user or of the whole tenant keeps everything readable until it is lifted."""
    for subject in ("user/ann", ""):
        ledger.vault.hold("acme", subject, reason="case 7", set_by="acme/eve")
        with pytest.raises(FailedPreconditionError, match="legal hold"):
            _erase(ledger)
        assert [hold[0] for hold in ledger.vault.holds("acme")] == ["acme"]
        assert disclosing.receipt(ledger, "req_ann", ANN)[0]["text_sha256"] == DIGEST
        assert ledger.vault.lift_hold("acme", subject)
    assert _erase(ledger).keys >= 2


def test_a_held_users_requests_do_not_expire(ledger: Ledger) -> None:
    """The hold covers what services recorded of ann's request without knowing her; bob's records go when their time is over."""
    ledger.vault.hold("acme", "user/ann", reason="case 7", set_by="acme/eve")

    assert governing.expire(ledger, "default", "2030-01") > 0
    assert all(entry.record for entry in disclosing.of_request(ledger, "req_ann", AUDITOR))
    assert not any(entry.record for entry in disclosing.of_request(ledger, "req_bob", AUDITOR))
    assert _search(ledger, adapter="patient-answer@v1") == ["req_ann/generate"]
