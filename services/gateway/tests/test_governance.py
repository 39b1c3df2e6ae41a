"""Erasure and legal hold over HTTP."""

import pytest

_ERASURES, _HOLDS = "/v1/audit/erasures", "/v1/audit/holds"
_ORDER = {"user": "u7", "reason": "asked by the user"}


async def test_a_user_is_erased_unless_held(stack) -> None:
    """A hold refuses the erasure with a code of its own, is listed without a name, and is lifted once; an erasure says what is pending."""
    officer = {"authorization": f"Bearer {await stack.new_key(role='privacy_officer')}"}
    async with stack.http() as http:
        held = await http.post(_HOLDS, json=_ORDER, headers=officer)
        refused = await http.post(_ERASURES, json=_ORDER, headers=officer)
        listed = (await http.get(_HOLDS, headers=officer)).json()["data"]
        lifted = [(await http.delete(f"{_HOLDS}?user=u7&reason=case+closed", headers=officer)).status_code for _ in range(2)]
        erased = await http.post(_ERASURES, json=_ORDER, headers=officer)
        later = [await http.get(f"{_ERASURES}/{name}", headers=officer) for name in ("e1", "e2")]

    assert (held.status_code, held.json()["whole_tenant"]) == (201, False)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "legal_hold")
    assert listed == [{"object": "audit.hold", "tenant": "acme", "subject_token": "ab", "reason": "asked by the user"}]
    assert lifted == [200, 404]
    holders = [{"holder": "orchestrator", "state": "erased"}, {"holder": "review", "state": "pending"}]
    assert erased.json() == {"object": "audit.erasure", "id": "e1", "tenant": "acme", "keys": 3, "requests": 2, "holders": holders}
    assert [answer.status_code for answer in later] == [200, 404]
    assert later[0].json()["holders"] == [{"holder": "review", "state": "erased"}]


@pytest.mark.parametrize("role", ["app", "auditor"])
async def test_governing_needs_its_own_permission(stack, role) -> None:
    """Who may read the audit may not make it unreadable, and nobody learns who is held."""
    other = {"authorization": f"Bearer {await stack.new_key(role=role)}"}
    async with stack.http() as http:
        answers = [
            await http.post(_ERASURES, json=_ORDER, headers=other),
            await http.post(_HOLDS, json=_ORDER, headers=other),
            await http.delete(f"{_HOLDS}?user=u7&reason=abc", headers=other),
            await http.get(f"{_ERASURES}/e1", headers=other),
            await http.get(_HOLDS, headers=other),
            await http.get(_HOLDS, headers={"authorization": ""}),
        ]
    assert [answer.status_code for answer in answers] == [403, 403, 403, 403, 403, 401]


async def test_what_is_malformed_is_named(stack) -> None:
    """An erasure needs a user and a reason; an unknown parameter and another method are refused."""
    officer = {"authorization": f"Bearer {await stack.new_key(role='privacy_officer')}"}
    async with stack.http() as http:
        wrong = [
            await http.post(_ERASURES, json={"reason": "asked"}, headers=officer),
            await http.post(_ERASURES, json={"user": "u7", "reason": ""}, headers=officer),
            await http.post(_HOLDS, json={"colour": "red"}, headers=officer),
            await http.delete(f"{_HOLDS}?user=u7", headers=officer),
            await http.get(f"{_HOLDS}?colour=red", headers=officer),
        ]
        missing = await http.get(_ERASURES, headers=officer)
    assert [(answer.status_code, answer.json()["error"]["param"]) for answer in wrong] == [
        (400, "user"),
        (400, "reason"),
        (400, "reason"),
        (400, "reason"),
        (400, "colour"),
    ]
    assert missing.status_code == 404
