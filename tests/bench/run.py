"""`make bench`: latency by step, gateway CPU, steps against bare KV, Strata against direct vLLM, in one run."""

import argparse
import asyncio
import csv
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from stack import Stack  # noqa: E402 - the folder is not a package

from contracts.identities import VLLM_PORT  # noqa: E402
from testkit.nats import free_port_offset  # noqa: E402

RESULTS = Path(__file__).with_name("results.csv")
GROUNDED = "What are the signs of dehydration in a child?"
MESSAGES = [{"role": "user", "content": "Explain in a few sentences why the sky is blue."}]
SYSTEM = {"role": "system", "content": "You are a helpful assistant. Answer briefly and say so when you do not know."}


def percentile(values: list[float], share: float) -> float:
    """Return the value below which `share` of the values lie."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


async def _post(client: httpx.AsyncClient, url: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
    response = await client.post(f"{url}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})
    response.raise_for_status()
    result: dict[str, Any] = response.json()
    return result


async def load(
    url: str, key: str, body: dict[str, Any], *, requests: int, concurrency: int
) -> tuple[list[dict[str, Any]], list[float], float]:
    """Send `requests` in a closed loop; return the answers, the seconds of each and the seconds of all."""
    limit, answers, seconds = asyncio.Semaphore(concurrency), [], []

    async def one(client: httpx.AsyncClient) -> None:
        async with limit:
            started = time.perf_counter()
            answers.append(await _post(client, url, key, body))
            seconds.append(time.perf_counter() - started)

    async with httpx.AsyncClient(timeout=300, limits=httpx.Limits(max_connections=concurrency)) as client:
        started = time.perf_counter()
        await asyncio.gather(*(one(client) for _ in range(requests)))
        return answers, seconds, time.perf_counter() - started


def by_step(answers: list[dict[str, Any]]) -> dict[str, float]:
    """Return the median milliseconds of each term that the answers report."""
    terms: dict[str, list[float]] = defaultdict(list)
    for answer in answers:
        for name, value in answer["strata"]["latency_ms"].items():
            terms[name].append(value)
    return {name: round(statistics.median(values), 1) for name, values in terms.items()}


async def latency(stack: Stack, concurrency: int, requests: int) -> dict[str, Any]:
    """Measure one grounded question through everything, decomposed by step."""
    body = {"model": "healthcare-triage", "messages": [{"role": "user", "content": GROUNDED}]}
    answers, seconds, _ = await load(stack.url, stack.key("bench", "patient_portal"), body, requests=requests, concurrency=concurrency)
    terms = by_step(answers)
    rest = [1000 * s - a["strata"]["latency_ms"].get("answer", 0.0) for s, a in zip(seconds, answers, strict=True)]
    return {
        "concurrency": concurrency,
        "n": requests,
        "p50_ms": round(1000 * statistics.median(seconds), 1),
        "p95_ms": round(1000 * percentile(seconds, 0.95), 1),
        "without_generation_p50_ms": round(statistics.median(rest), 1),
        "steps_p50_ms": terms,
    }


async def throughput(stack: Stack, requests: int, concurrency: int = 16) -> dict[str, Any]:
    """Measure generated tokens per second directly and through Strata, alternating, and their ratio."""
    engine = f"http://127.0.0.1:{VLLM_PORT + stack.offset}"
    engine_key = (stack.state / "credentials" / "inference" / "engine.key").read_text().strip()
    key, rates = stack.key("bench", "app"), defaultdict(list)
    shared = {"max_tokens": 64, "temperature": 0.0}
    direct = {"model": "smollm2-135m", "messages": [SYSTEM, *MESSAGES], **shared}
    through = {"model": "chat", "messages": MESSAGES, **shared}
    for _ in range(3):
        for name, url, secret, body in (("direct", engine, engine_key, direct), ("strata", stack.url, key, through)):
            answers, _, seconds = await load(url, secret, body, requests=requests, concurrency=concurrency)
            rates[name].append(sum(a["usage"]["completion_tokens"] for a in answers) / seconds)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "concurrency": concurrency,
        "n": requests,
        "direct_tokens_per_s": round(medians["direct"], 1),
        "strata_tokens_per_s": round(medians["strata"], 1),
        "ratio": round(medians["strata"] / medians["direct"], 3),
    }


def script(path: str, *arguments: str) -> dict[str, Any]:
    """Run a service's own benchmark and return what it prints; several objects by their concurrency."""
    result = subprocess.run([sys.executable, str(ROOT / path), *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{path}: {result.stderr[-2000:]}")
    decoder, text, printed = json.JSONDecoder(), result.stdout[result.stdout.index("{") :].strip(), []
    while text:
        value, end = decoder.raw_decode(text)
        # Lines with an event are logs of the processes under test.
        printed += [value] if "event" not in value else []
        text = text[end:].strip()
    return printed[0] if len(printed) == 1 else {f"at_{value['concurrency']}": value for value in printed}


def flat(prefix: str, value: Any) -> list[tuple[str, Any]]:
    """Return the leaves of nested results as dotted names and values."""
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in flat(f"{prefix}.{key}", inner)]
    return [(prefix, value)]


def record(results: dict[str, Any]) -> None:
    """Append one row per figure with date, version and host."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    host = f"{platform.machine()} {platform.system()} {platform.release()} 2 cores"
    new = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["date", "version", "commit", "host", "figure", "value"])
        for name, value in flat("", results):
            writer.writerow([datetime.now(UTC).date().isoformat(), version("strata-cli"), commit, host, name.lstrip("."), value])


def main() -> None:
    """Measure everything, print it as JSON and record it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--skip-record", action="store_true")
    arguments = parser.parse_args()
    results: dict[str, Any] = {
        "gateway": script("services/gateway/bench/bench_gateway.py"),
        "steps": script("services/orchestrator/bench/bench_steps.py"),
    }
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder) / "state", free_port_offset(), {"STRATA_DEADLINE_FACTOR": "10"})
        stack.up()
        try:
            asyncio.run(latency(stack, 1, 4))
            results["latency_1"] = asyncio.run(latency(stack, 1, arguments.requests // 2))
            results["latency_16"] = asyncio.run(latency(stack, 16, arguments.requests))
            results["throughput_16"] = asyncio.run(throughput(stack, arguments.requests))
        finally:
            stack.down()
    sys.stdout.write(json.dumps(results, indent=1) + "\n")
    if not arguments.skip_record:
        record(results)


if __name__ == "__main__":
    main()
