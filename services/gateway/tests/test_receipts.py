"""Receipts and lookups over HTTP."""


async def test_a_receipt_is_handed_over_as_json_or_cose(stack) -> None:
    """The caller goes along, an unknown request is not found, and the client chooses the form."""
    async with stack.http() as http:
        plain = await http.get("/v1/receipts/req_1")
        signed = await http.get("/v1/receipts/req_1", headers={"accept": "application/cose"})
        others = [(await http.get(path)).status_code for path in ("/v1/receipts/req_unknown", "/v1/receipts/a.b", "/v1/receipts")]
        unsigned = await http.get("/v1/receipts/req_1", headers={"authorization": ""})

    assert plain.json() == {"request_id": "req_1"}
    assert (signed.content, signed.headers["content-type"]) == (b"u1", "application/cose")
    assert others == [404, 404, 404]
    assert unsigned.status_code == 401


async def test_the_audit_is_searched_by_who_may(stack) -> None:
    """A role without audit:read is refused; filters, page and place come back; what is malformed is named."""
    auditor = {"authorization": f"Bearer {await stack.new_key(role='auditor')}"}
    async with stack.http() as http:
        refused = await http.get("/v1/audit/records")
        found = (await http.get("/v1/audit/records?step=release&adapter=a@v1&limit=3", headers=auditor)).json()
        wrong = [await http.get(f"/v1/audit/records?{query}", headers=auditor) for query in ("limit=501", "colour=red", "limit=x", "a")]

    assert refused.status_code == 403
    assert found["data"] == [{"index": 7, "hash": "aa", "tenant": "acme", "service": "a@v1", "step": "release"}]
    assert (found["has_more"], found["next_cursor"]) == (True, "3")
    assert [answer.status_code for answer in wrong] == [400] * 4
