"""Bad requests, and requests of others: each gets its own stable code in OpenAI's envelope."""

import asyncio
import json
import time

import openai
import pytest
import scripted
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

_ASK = [{"role": "user", "content": "Hello?"}]
_CHAT = "/v1/chat/completions"


_BAD_BODIES = [
    (b"{not json", "invalid_json", None),
    (b"", "invalid_json", None),
    (b"[]", "invalid_request", "body"),
    (b"{}", "invalid_request", "messages"),
    (json.dumps({"messages": []}).encode(), "invalid_request", "messages"),
    (json.dumps({"messages": [{"role": "wizard", "content": "x"}]}).encode(), "invalid_request", "messages.0.role"),
    (json.dumps({"messages": _ASK, "temperature": 9}).encode(), "invalid_request", "temperature"),
    (json.dumps({"messages": _ASK, "n": 2}).encode(), "invalid_request", "n"),
    (json.dumps({"messages": _ASK, "stop": list("abcde")}).encode(), "invalid_request", "stop"),
    (json.dumps({"messages": _ASK, "strata": {"context": {"x": float("nan")}}}).encode(), "invalid_request", "strata.context"),
    (
        json.dumps({"messages": _ASK, "response_format": {"type": "json_schema"}}).encode(),
        "invalid_request",
        "response_format.json_schema",
    ),
    (json.dumps({"messages": _ASK * 300}).encode(), "invalid_request", "messages"),
]


async def test_a_bad_body_is_400_with_the_field(stack) -> None:
    """The envelope names what is wrong, and where."""
    async with stack.http() as http:
        answers = [await http.post(_CHAT, content=body) for body, _, _ in _BAD_BODIES]

    errors = [answer.json()["error"] for answer in answers]
    assert [(error["code"], error["param"]) for error in errors] == [(code, param) for _, code, param in _BAD_BODIES]
    assert {error["type"] for error in errors} == {"invalid_request_error"}
    assert {answer.status_code for answer in answers} == {400}
    assert all(answer.headers["x-request-id"] for answer in answers)


async def test_deep_nesting_is_refused(stack) -> None:
    """What protobuf could not carry is refused at the edge."""
    deep: dict = {}
    for _ in range(40):
        deep = {"a": deep}
    async with stack.http() as http:
        response = await http.post(_CHAT, json={"messages": _ASK, "strata": {"context": deep}})

    assert (response.status_code, response.json()["error"]["param"]) == (400, "strata.context")


async def test_a_prompt_of_a_megabyte_is_too_large(stack) -> None:
    """413, whether the size is declared or not."""
    client = stack.openai()
    with pytest.raises(openai.APIStatusError) as caught:
        await client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "x" * 1024 * 1024}])

    async def pieces():
        for _ in range(64):
            yield b"x" * 16384

    async with stack.http() as http:
        undeclared = await http.post(_CHAT, content=pieces())

    assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")
    assert undeclared.json()["error"]["code"] == "request_too_large"


async def test_an_unknown_model_is_404(stack) -> None:
    """So is one that another tenant owns, and a workflow that the role may not run."""
    client = stack.openai()

    async def names() -> set[str]:
        return {model.id for model in (await client.models.list()).data}

    async def are_read() -> bool:
        return "small" in await names()

    await scripted.until(are_read)
    assert await names() == {"auto", "chat", "extract", "small", "patient-answer@v1"}
    for model in ("gpt-4", "private@v1", "healthcare-triage"):
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model=model, messages=_ASK)
        assert caught.value.code == "model_not_found"
    await client.chat.completions.create(model="patient-answer@v1", messages=_ASK)
    await client.chat.completions.create(model="small", messages=_ASK)
    assert [(r.workflow, r.adapter, r.tier) for r in stack.orchestrator.seen] == [("chat", "patient-answer@v1", ""), ("chat", "", "small")]


async def test_a_role_decides_which_workflows_can_be_named(stack) -> None:
    """A nurse's key names the triage workflow; two names for one request must agree."""
    client = stack.openai(await stack.new_key(role="nurse"))
    await client.chat.completions.create(model="healthcare-triage", messages=_ASK)
    await client.chat.completions.create(model="auto", messages=_ASK, extra_body={"strata": {"workflow": "extract"}})
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="chat", messages=_ASK, extra_body={"strata": {"workflow": "extract"}})

    assert [request.workflow for request in stack.orchestrator.seen] == ["healthcare-triage", "extract"]
    assert "pii:read" in stack.orchestrator.seen[0].caller.permissions
    assert caught.value.param == "strata.workflow"


async def test_wrong_expired_and_revoked_keys_are_401(stack) -> None:
    """A key stops to work the moment its record says so."""
    expired = await stack.new_key(expires_at="2026-01-01T00:00:00Z")
    wild = await stack.new_key(tenant="acme.>")
    revoked = await stack.new_key()
    await stack.openai(revoked).chat.completions.create(model="auto", messages=_ASK)
    bucket = await stack.admin.jetstream().key_value("KEYS")
    key_id = revoked.split("-")[2]
    record = json.loads((await bucket.get(key_id)).value)
    await bucket.put(key_id, json.dumps(record | {"revoked": True}).encode())

    async def is_refused() -> bool:
        async with stack.http(revoked) as http:
            return (await http.get("/v1/models")).status_code == 401

    await scripted.until(is_refused)
    for key in (expired, wild, revoked, stack.key[:-1] + ("A" if stack.key[-1] != "A" else "B"), "sk-nothing", "x"):
        with pytest.raises(openai.AuthenticationError) as caught:
            await stack.openai(key).chat.completions.create(model="auto", messages=_ASK)
        assert caught.value.code == "invalid_api_key"


async def test_a_role_without_rights_is_403(stack) -> None:
    """A role that no domain declares may do nothing."""
    with pytest.raises(openai.PermissionDeniedError) as caught:
        await stack.openai(await stack.new_key(role="nobody")).chat.completions.create(model="auto", messages=_ASK)

    assert caught.value.code == "permission_denied"


async def test_tokens_of_the_issuer_are_accepted_and_all_others_refused(run, tmp_path) -> None:
    """Signature, algorithm, issuer, audience, expiry and a plain tenant name are all demanded."""
    keys = {
        "RS256": RSAKey.generate_key(2048, {"kid": "rsa"}),
        "ES256": ECKey.generate_key("P-256", {"kid": "ec"}),
        "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "ed"}),
    }
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [key.as_dict(private=False) for key in keys.values()]}))
    claims = {"iss": "https://id.test", "aud": "strata", "sub": "u7", "tenant": "acme", "role": "app", "exp": time.time() + 300}

    def token(algorithm="ES256", key=None, **changes: object) -> str:
        signer = key or keys[algorithm]
        body = {name: value for name, value in (claims | changes).items() if value is not None}
        return jwt.encode({"alg": algorithm, "kid": signer.kid}, body, signer, algorithms=[algorithm])

    stranger = ECKey.generate_key("P-256", {"kid": "ec"})
    secret = OctKey.import_key(path.read_bytes()[:64], {"kid": "rsa"})
    refused = [
        token(exp=time.time() - 120),
        token(exp=None),
        token(iss="https://evil.test"),
        token(aud="other"),
        token(tenant="acme.*"),
        token(tenant=">"),
        token(tenant=None),
        token(role=["app"]),
        token(key=stranger),
        token("HS256", secret),
        token()[:-4] + "AAAA",
        "a.b.c",
    ]
    jwt_settings = {"jwks_file": path, "issuer": "https://id.test", "audience": "strata"}
    async with run(jwt=jwt_settings) as stack, stack.http() as http:
        for algorithm in keys:
            await stack.openai(token(algorithm)).chat.completions.create(model="auto", messages=_ASK)
        bodies = []
        for credential in refused:
            response = await http.post(_CHAT, json={"messages": _ASK}, headers={"authorization": f"Bearer {credential}"})
            assert response.status_code == 401, credential
            bodies.append(response.json()["error"]["message"])

    assert [(r.caller.tenant, r.caller.user, r.caller.key_id) for r in stack.orchestrator.seen] == [
        ("acme", "u7", "jwt:rsa"),
        ("acme", "u7", "jwt:ec"),
        ("acme", "u7", "jwt:ed"),
    ]
    assert "tenant is not a valid name" in bodies[4]


async def test_a_rotated_key_set_is_read_again(run) -> None:
    """A token of a new key is refused once, and accepted after the set was read again."""
    old, new = (ECKey.generate_key("P-256", {"kid": kid}) for kid in ("old", "new"))
    published = [old]

    async def answer(reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"keys": [key.as_dict(private=False) for key in published]}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks"
    claims = {"iss": "i", "aud": ["strata"], "sub": "u", "tenant": "acme", "role": "app", "exp": time.time() + 300}
    tokens = [jwt.encode({"alg": "ES256", "kid": key.kid}, claims, key) for key in (old, new)]
    async with server, run(jwt={"jwks_url": url, "issuer": "i", "audience": "strata"}) as stack, stack.http() as http:

        async def status(token: str) -> int:
            return (await http.post(_CHAT, json={"messages": _ASK}, headers={"authorization": f"Bearer {token}"})).status_code

        async def is_accepted(token: str) -> bool:
            return await status(token) == 200

        await scripted.until(lambda: is_accepted(tokens[0]))
        before = await status(tokens[1])
        published.append(new)
        await scripted.until(lambda: is_accepted(tokens[1]))

    assert before == 401


async def _all_on_record(stack) -> bool:
    """Tell whether each request that was taken has its three records."""
    return len(await scripted.records(stack.admin)) == 3 * len(stack.orchestrator.seen)


async def test_nothing_is_accepted_while_audit_cannot_write(stack) -> None:
    """503 audit_unavailable, and no trace of the request anywhere; afterwards all is well again."""
    async with stack.http() as http:

        async def is_taken() -> bool:
            return (await http.post(_CHAT, json={"messages": _ASK})).status_code == 200

        async def is_refused() -> bool:
            return not await is_taken()

        await scripted.set_audit(stack.admin, writable=False)
        await scripted.until(is_refused)
        await scripted.until(lambda: _all_on_record(stack))
        before = len(stack.orchestrator.seen), len(await scripted.records(stack.admin))
        refused = await http.post(_CHAT, json={"messages": _ASK})
        after = len(stack.orchestrator.seen), len(await scripted.records(stack.admin))
        await scripted.set_audit(stack.admin, writable=True)
        await scripted.until(is_taken)

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "audit_unavailable")
    assert refused.headers["retry-after"] == "5"
    assert after == before
    assert len(stack.orchestrator.seen) == before[0] + 1


async def test_limits_are_told_and_kept(run) -> None:
    """What is left is in the headers; beyond it 429 says when to come back."""
    limits = {"requests_per_minute": 1, "request_burst": 2}
    async with run(limits=limits) as stack, stack.http() as http:
        first, second, third = [await http.post(_CHAT, json={"messages": _ASK}) for _ in range(3)]

    assert [r.status_code for r in (first, second, third)] == [200, 200, 429]
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert third.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(third.headers["retry-after"]) <= 60
    assert third.headers["x-ratelimit-remaining-requests"] == "0"
    assert int(third.headers["x-ratelimit-remaining-tokens"]) > 0


async def test_tokens_are_reserved_and_settled(run) -> None:
    """A request that asks for more tokens than are left waits; what was reserved and not used comes back."""

    async def uses_400(orchestrator, request) -> None:
        final = scripted.completion(prompt_tokens=300, completion_tokens=100)
        await orchestrator.send(request, orchestrator.signer.window(request, 0, "Hello", final=final))

    async with run(limits={"tokens_per_minute": 2000}) as stack, stack.http() as http:
        stack.orchestrator.script = uses_400
        answers = [await http.post(_CHAT, json={"messages": _ASK, "max_tokens": 1100}) for _ in range(3)]
        limit = await http.post(_CHAT, json={"messages": _ASK, "max_tokens": 1990})

    assert [a.status_code for a in answers] == [200, 200, 200]
    assert (limit.status_code, limit.json()["error"]["reason"]) == (429, "tokens")


async def test_too_many_at_once_are_told_to_retry(run) -> None:
    """The bound on concurrent requests of one tenant does not touch another tenant."""
    go_on = asyncio.Event()

    async def slow(orchestrator, request) -> None:
        if request.caller.tenant == "acme":
            await go_on.wait()
        await scripted.hello(orchestrator, request)

    async def _seen() -> object:
        return stack.orchestrator.seen

    async with run(limits={"max_concurrent": 1}) as stack, stack.http() as http:
        stack.orchestrator.script = slow
        other = await stack.new_key(tenant="globex")
        task = asyncio.create_task(http.post(_CHAT, json={"messages": _ASK}))
        await scripted.until(_seen)
        refused = await http.post(_CHAT, json={"messages": _ASK})
        elsewhere = await http.post(_CHAT, json={"messages": _ASK}, headers={"authorization": f"Bearer {other}"})
        go_on.set()

        assert (await task).status_code == 200
    assert (refused.status_code, refused.json()["error"]["reason"]) == (429, "concurrency")
    assert elsewhere.status_code == 200
