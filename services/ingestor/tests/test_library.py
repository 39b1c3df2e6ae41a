"""Versions, supersession, withdrawal, and what is embedded again."""

import datetime as dt
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from chassis.errors import FailedPreconditionError, InvalidArgumentError
from encoders.encoder import Vectors
from ingestor.ledger import Ledger
from ingestor.library import Library, Outcome
from knowledge.lance import LanceIndex
from knowledge.schema import Document, Kind
from knowledge.visibility import Visibility

FIRST = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
SECOND = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
THIRD = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def _rule(version: str, date: dt.datetime | None, text: str = "Refunds take ten days.", **changes: Any) -> Document:
    return replace(Document("rules", Kind.ANCHORED, "refunds", "Refunds", text, version=version, effective_from=date), **changes)


def _notice(text: str, **changes: Any) -> Document:
    return replace(Document("notices", Kind.FLUID, "lift", "Lift", text), **changes)


def _put(library: Library, document: Document) -> Outcome:
    (outcome,) = library.put([document])
    if outcome.refusal is not None:
        raise outcome.refusal
    return outcome


def _ends(index: LanceIndex) -> dict[str, dt.datetime | None]:
    (chunks,) = index.documents(Kind.ANCHORED, [_rule("1", FIRST).key]).values()
    return {chunk.version: chunk.superseded_at for chunk in chunks}


def test_versions_supersede_each_other_by_date(library: Library, index: LanceIndex) -> None:
    """A version that is put later but took effect earlier finds its place between the others; none is lost."""
    assert _put(library, _rule("1", FIRST)).supersedes == ""
    assert _put(library, _rule("3", THIRD, "Refunds take three days.")).supersedes == "1"
    assert _put(library, _rule("2", SECOND, "Refunds take five days.")).supersedes == "1"
    assert _ends(index) == {"1": SECOND, "2": THIRD, "3": None}


def test_several_versions_in_one_group(library: Library, index: LanceIndex) -> None:
    """A folder may hold all versions of a document; they arrive in one commit."""
    library.put([_rule("2", SECOND, "Refunds take five days."), _rule("1", FIRST)])
    assert _ends(index) == {"1": SECOND, "2": None}


def test_the_same_document_again_changes_nothing(library: Library, index: LanceIndex, encoder: Any) -> None:
    """A repeat writes nothing, embeds nothing and announces nothing."""
    for document in (_rule("1", FIRST), _notice("The lift is broken.")):
        assert _put(library, document).change is not None
        versions, texts = index.versions(), list(encoder.texts)
        repeat = _put(library, document)
        assert (repeat.change, repeat.chunks) == (None, 1)
        assert (index.versions(), encoder.texts) == (versions, texts)


def test_two_versions_with_one_date_are_refused(library: Library, index: LanceIndex) -> None:
    """Which one would be in force could not be told; nothing is stored and the message names both."""
    _put(library, _rule("1", FIRST))
    with pytest.raises(FailedPreconditionError, match="versions '1' and '2' of 'refunds' take effect on the same date 2024-01-01"):
        _put(library, _rule("2", FIRST, "Other text."))
    assert _ends(index) == {"1": None}


def test_a_stored_version_keeps_its_text(library: Library) -> None:
    """What was cited once cannot be rewritten under the same version."""
    _put(library, _rule("1", FIRST))
    with pytest.raises(FailedPreconditionError, match="stored with another text; publish a new version"):
        _put(library, _rule("1", FIRST, "Refunds take a year."))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (_rule("1", None), "'effective_from' is missing"),
        (_rule("1", FIRST, "  "), "'text' is empty"),
        (_rule("1", FIRST, "\x00\x01"), "binary data"),
        (_rule("1", FIRST, "x" * 10_001), "the limit is 10000"),
        (_rule("1", FIRST, labels=("Not a label",)), "label 'Not a label'"),
        (_rule("1", FIRST, document_id=" "), "field 'id'"),
        (_rule("1", SECOND, expires_at=FIRST), "would never be in force"),
    ],
)
def test_bad_documents_are_refused_by_field(library: Library, document: Document, message: str) -> None:
    """A document that cannot be kept names the field that is wrong."""
    with pytest.raises(InvalidArgumentError, match=message):
        _put(library, document)


def test_one_bad_document_does_not_stop_its_group(library: Library, index: LanceIndex) -> None:
    """The others of the group are stored, and the bad one has its refusal."""
    bad, good = library.put([_rule("1", None), _rule("2", SECOND)])
    assert isinstance(bad.refusal, InvalidArgumentError)
    assert good.change is not None
    assert _ends(index) == {"2": None}


def test_a_withdrawn_version_gives_way_to_the_one_before(library: Library, index: LanceIndex) -> None:
    """Withdrawal needs a reason, holds the text, and cannot be undone by putting the version again."""
    _put(library, _rule("1", FIRST))
    _put(library, _rule("2", SECOND, "Refunds take five days."))
    with pytest.raises(InvalidArgumentError, match="reason"):
        library.remove(Kind.ANCHORED, "rules", "refunds", version="2")
    assert library.remove(Kind.ANCHORED, "rules", "refunds", version="2", reason="published by mistake")
    assert not library.remove(Kind.ANCHORED, "rules", "refunds", version="2", reason="again")
    assert _ends(index)["1"] is None
    with pytest.raises(FailedPreconditionError, match="was withdrawn"):
        _put(library, _rule("2", SECOND, "Refunds take five days."))


def test_a_fluid_document_has_one_version(library: Library, index: LanceIndex) -> None:
    """New text replaces the old, and a deletion leaves nothing."""
    _put(library, _notice("The lift is broken."))
    _put(library, _notice("The lift works again.", version="b"))
    (chunks,) = index.documents(Kind.FLUID, [_notice("").key]).values()
    assert [chunk.text for chunk in chunks] == ["The lift works again."]
    assert library.remove(Kind.FLUID, "notices", "lift")
    assert not library.remove(Kind.FLUID, "notices", "lift")
    assert index.holdings() == {}


def test_names_that_look_alike_stay_apart(library: Library, index: LanceIndex) -> None:
    """Where one name ends and its version begins is told also when both have the sign between them: neither version is lost."""
    first, second = _rule("b@c", FIRST, document_id="a"), _rule("c", FIRST, "Refunds take five days.", document_id="a@b")
    _put(library, first)
    _put(library, second)
    for document in (first, second):
        (chunks,) = index.documents(Kind.ANCHORED, [document.key]).values()
        assert [(chunk.version, chunk.text) for chunk in chunks] == [(document.version, document.text)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tenant": "a\x1fb"}, "tenant"),
        ({"tenant": "a:rules/x"}, "tenant"),
        ({"document_id": "a\nb"}, "'id' must be a name"),
        ({"version": "1\x00"}, "'version' must be a name"),
        ({"title": "x" * 2001}, "'title' has 2001 characters; the limit is 2000"),
        ({"source": "x" * 2001}, "'source' has 2001"),
        ({"metadata": {"a=b": "c"}}, "names of 1 to 500 characters without '='"),
        ({"metadata": {"a": "x" * 8001}}, "'metadata.a' has 8001"),
        ({"metadata": {f"a{n}": "" for n in range(65)}}, "65 entries; the limit is 64"),
    ],
)
def test_names_that_no_index_could_tell_apart_or_hold_are_refused(library: Library, changes: dict[str, Any], message: str) -> None:
    """A name that would break the searches of all, or that another one could be taken for, is refused; so is one without end."""
    with pytest.raises(InvalidArgumentError, match=message):
        _put(library, replace(_rule("1", FIRST), **changes))


def test_tenants_do_not_share_a_document(library: Library, index: LanceIndex) -> None:
    """The same identifier of two tenants is two documents; one's deletion leaves the other's."""
    _put(library, _notice("Ours.", tenant="acme"))
    _put(library, _notice("Theirs.", tenant="rival"))
    library.remove(Kind.FLUID, "notices", "lift", tenant="acme")
    (chunks,) = index.documents(Kind.FLUID, [_notice("", tenant="rival").key]).values()
    assert [chunk.text for chunk in chunks] == ["Theirs."]


def test_only_changed_text_is_embedded(library: Library, encoder: Any) -> None:
    """A change of access embeds nothing; a change of one section embeds that section."""
    section = " ".join(["This section says something about the lift."] * 25)
    text = f"# Lift\n\n{section}\n\n# Stairs\n\n{section}"
    assert _put(library, _notice(text)).chunks == 2
    encoder.texts.clear()
    assert _put(library, _notice(text, labels=("staff",))).change is not None
    assert encoder.texts == []
    _put(library, _notice(text.replace("# Stairs", "# Escalator")))
    assert [("Escalator" in text, "# Lift" in text) for text in encoder.texts] == [(True, False)]


def test_a_crash_between_intent_and_deed_is_settled(library: Library, ledger: Ledger, index: LanceIndex) -> None:
    """After a restart, a change that reached the index is announced, and one that did not is forgotten."""
    done = _put(library, _notice("The lift is broken."))
    lost = replace(done.change, change_id="lost", hash="never written")
    ledger.drop([done.change])
    ledger.intend([done.change, lost])
    library.recover()
    assert [change.change_id for change in ledger.pending(done=True)] == [done.change.change_id]
    assert ledger.pending(done=False) == []


def test_a_document_is_cut_as_its_collection_declares(library: Library, index: LanceIndex) -> None:
    """Another chunker cuts the same text anew, also the one that needs the encoder."""
    text = "The lift is broken. The stairs are free. The door is open. The roof is closed."
    counts = []
    for chunker in ("", "sentence-window-2-0-v1", "semantic-180-v1"):
        outcome = _put(library, _notice(text, chunker=chunker))
        (chunks,) = index.documents(Kind.FLUID, [_notice("").key]).values()
        assert {chunk.chunker for chunk in chunks} == {chunker or "structural-180-v1"}
        counts.append((outcome.change is not None, len(chunks)))
    assert counts == [(True, 1), (True, 2), (True, 1)]


def test_a_version_of_the_future_supersedes_when_its_moment_comes(library: Library, ledger: Ledger, tmp_path: Any) -> None:
    """The event is noted once, at that moment and not before, also by a process that was started in between."""
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    _put(library, _rule("1", FIRST))
    put = _put(library, _rule("2", moment, "Refunds take five days.")).change
    assert put is not None
    assert (put.in_force, put.no_longer, put.supersedes) == ("1", "", "1")
    ledger.drop(ledger.pending(done=True))
    assert library.take_effect(moment - dt.timedelta(microseconds=1)) == 0
    restarted = Ledger(tmp_path / "knowledge" / "ledger.db")
    assert [change.version for change in restarted.due(moment.isoformat(timespec="microseconds"))] == ["2"]
    restarted.close()
    assert library.take_effect(moment) == 1
    assert library.take_effect(moment + THIRD.resolution) == 0
    (change,) = ledger.pending(done=True)
    assert (change.change_id, change.change) == (f"effect/{put.document_key}/2", "superseded")
    assert (change.in_force, change.no_longer, change.at) == ("2", "1", moment.isoformat(timespec="microseconds"))


def test_a_version_that_was_withdrawn_before_its_moment_supersedes_nothing(library: Library, ledger: Ledger) -> None:
    """Nobody is told that a version is in force that never came to be."""
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    _put(library, _rule("1", FIRST))
    _put(library, _rule("2", moment, "Refunds take five days."))
    library.remove(Kind.ANCHORED, "rules", "refunds", version="2", reason="mistake")
    ledger.drop(ledger.pending(done=True))
    assert library.take_effect(moment) == 0
    assert ledger.pending(done=True) == []


def test_a_lost_ledger_learns_again_what_is_to_come(library: Library, ledger: Ledger) -> None:
    """Putting what is stored already notes its moment, and announces nothing."""
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    _put(library, _rule("1", FIRST))
    change = _put(library, _rule("2", moment, "Refunds take five days.")).change
    assert change is not None
    ledger.take_effect(change, None)
    ledger.drop(ledger.pending(done=True))
    assert _put(library, _rule("2", moment, "Refunds take five days.")).change is None
    assert ledger.pending(done=True) == []
    assert library.take_effect(moment) == 1


class _Stuck:
    """An encoder that answers when it may."""

    def __init__(self, encoder: Any) -> None:
        self._encoder, self.asked, self.may = encoder, threading.Event(), threading.Event()

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Wait, then encode."""
        self.asked.set()
        assert self.may.wait(600)
        return self._encoder.encode(texts)


def test_deletions_and_change_events_do_not_wait_for_an_encoder(library: Library, index: LanceIndex, encoder: Any, ledger: Ledger) -> None:
    """While a text is embedded others delete; what is stored then is planned anew, also where it stood on what was deleted."""
    lift, stairs = _notice("The lift is broken."), _notice("The stairs are closed.", document_id="stairs")
    library.put([lift, stairs])
    stuck = _Stuck(encoder)
    slow = Library(index, stuck, ledger, longest_text_bytes=10_000)
    visible = Visibility("acme", frozenset({"staff"}), ("notices",), dt.datetime.now(dt.UTC) + dt.timedelta(days=1))
    relabelled = replace(lift, labels=("staff",))
    with ThreadPoolExecutor(2) as threads:
        putting = threads.submit(slow.put, [relabelled, _notice("The door is new.", document_id="door")])
        try:
            assert stuck.asked.wait(180)
            assert threads.submit(slow.remove, Kind.FLUID, "notices", "lift").result(180)
            assert threads.submit(slow.apply, [], {stairs.key: stairs.position + 2**62}).result(180).removed == [stairs.key]
            assert index.lexical("lift stairs door", visible, 5) == []
        finally:
            stuck.may.set()
        assert [outcome.refusal for outcome in putting.result(180)] == [None, None]
    assert sorted(hit.chunk.document_id for hit in index.lexical("lift stairs door", visible, 5)) == ["door", "lift"]
    assert index.without_vector(Kind.FLUID, 5) == []
