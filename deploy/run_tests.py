"""Run each package's own tests in a process of its own, some at a time, and sum up.

A test that failed beside others is run once more, alone. Where it passes then it is named UNSTEADY: a bug of the test or of the code, to be
mended, but no reason to refuse a change that did not bring it. What proves that nothing is lost has no second try, nor has anything
where many tests fail.
"""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("libs/*/tests", "services/*/tests", "domains/tests", "models/*/tests", "tests")
NOTHING_SELECTED = 5
_LONGEST_SECONDS = 1200
# Those that take longest begin first, so that none of them is left over at the end.
_LONG = ("ingestor", "knowledge", "gateway", "retriever", "orchestrator", "guardrail", "audit", "cli", "inference", "encoders")
# A record that is lost in one run of ten is lost.
_ONE_TRY = re.compile(r"^(?:FAILED|ERROR) (?:tests/|libs/tlog/|services/audit/|\S*/test_(?:crashes|kills)\.py)", re.MULTILINE)
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+::\S+)", re.MULTILINE)
TESTS_FAILED = 1
_UNSTEADY_MOST = 3
# Hypothesis then draws the same examples each time, and no time of a loaded machine fails a test.
_ENVIRONMENT = {**os.environ, "CI": "true"}
# Beside each other the packages have no second core each, and threads that wait for one only burn it.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def run(folder: Path, marker: str, environment: dict[str, str], *more: str) -> tuple[Path, int, str, float]:
    """Run the tests of one folder that match the marker; return its exit code, output and seconds."""
    started = time.monotonic()
    # What failed last is remembered for each folder by itself, as they run beside each other.
    cache = ROOT / ".pytest_cache" / folder.relative_to(ROOT)
    options = ["--durations=3", "-o", "addopts=--import-mode=importlib", "-o", f"cache_dir={cache}", *more]
    command = [sys.executable, "-m", "pytest", str(folder), "-m", marker, *options]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        output, _ = process.communicate(timeout=_LONGEST_SECONDS)
    except subprocess.TimeoutExpired:
        # An interrupt lets fixtures stop the servers that they started.
        process.send_signal(signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
        output += f"\nended after {_LONGEST_SECONDS} s"
    return folder, process.returncode, output, time.monotonic() - started


def _may_have(folder: Path, marker: str) -> bool:
    """Return whether a folder can hold tests of a marker; collecting the others takes a minute in all."""
    wanted = re.findall(r"\w+", marker)
    return "not" in wanted or any(f"mark.{name}" in file.read_text() for file in folder.rglob("*.py") for name in wanted)


def _once_more(failed: list[tuple[Path, int, str]], marker: str) -> bool:
    """Run what failed again, with nothing beside it; return whether all of it passes then."""
    names = [_FAILED.findall(output) for _, _, output in failed]
    if any(code != TESTS_FAILED or not found or _ONE_TRY.search(output) for (_, code, output), found in zip(failed, names, strict=True)):
        return False
    if sum(map(len, names)) > _UNSTEADY_MOST:
        return False
    for folder, _, _ in failed:
        _, code, output, _ = run(folder, marker, _ENVIRONMENT, "--last-failed", "--last-failed-no-failures=none")
        if code:
            print(output, flush=True)
            return False
    for name in chain.from_iterable(names):
        print(f"UNSTEADY {name}: failed beside others, passed alone")
    return True


def main(marker: str, workers: int) -> int:
    """Run all folders; return 1 when anything failed."""
    found = sorted(path for pattern in FOLDERS for path in ROOT.glob(pattern) if path.is_dir() and _may_have(path, marker))
    folders = sorted(found, key=lambda path: _LONG.index(path.parent.name) if path.parent.name in _LONG else len(_LONG))
    environment = _ENVIRONMENT | (_ONE_THREAD if workers > 1 else {})
    passed = failed = 0
    broken: list[tuple[Path, int, str]] = []
    with ThreadPoolExecutor(workers) as pool:
        for folder, code, output, seconds in pool.map(lambda path: run(path, marker, environment), folders):
            counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error)", output.rsplit("\n=", 1)[-1])}
            passed += counts.get("passed", 0)
            failed += counts.get("failed", 0) + counts.get("error", 0)
            good = code in {0, NOTHING_SELECTED}
            print(
                f"{'ok  ' if good else 'FAIL'} {folder.relative_to(ROOT)}: {counts.get('passed', 0)} passed in {seconds:.0f} s", flush=True
            )
            if not good:
                print(output, flush=True)
                broken.append((folder, code, output))
    steady = not broken or (workers > 1 and _once_more(broken, marker))
    print(f"{passed} passed, {failed} failed")
    return 0 if steady and passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
