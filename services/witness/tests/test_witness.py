"""The witness as logs see it: over HTTP, in a process of its own, with its memory on the disk."""

import base64
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from testkit.ports import free_port, is_free
from tlog.notes import Checkpoint, Signer, parse_note, parse_signature, parse_verifier
from tlog.tree import CompactRange, consistency_proof, leaf_hash, node_hash

LOG = Signer("strata/test", Ed25519PrivateKey.from_private_bytes(bytes(32)))


class Tree:
    """A log in memory; `salt` makes another past."""

    def __init__(self, count: int, salt: str = "") -> None:
        self.leaves = [leaf_hash(f"{salt}{n}".encode()) for n in range(count)]

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of a complete subtree."""
        return self.leaves[index] if level == 0 else node_hash(self.node(level - 1, 2 * index), self.node(level - 1, 2 * index + 1))

    def note(self, size: int, signer: Signer = LOG) -> str:
        """Return the signed checkpoint of the first leaves."""
        grown = CompactRange()
        for leaf in self.leaves[:size]:
            grown.append(leaf)
        return signer.sign(Checkpoint(signer.name, size, grown.root()).text())

    def body(self, old: int, new: int, signer: Signer = LOG) -> bytes:
        """Return a request that shows how the log grew."""
        proof = "".join(f"{base64.b64encode(part).decode()}\n" for part in consistency_proof(self.node, old, new))
        return f"old {old}\n{proof}\n{self.note(new, signer)}".encode()


@contextmanager
def witness_process(folder: Path, *logs: str) -> Iterator[str]:
    """Run a witness; yield its URL."""
    port = free_port()
    options = [part for log in logs or (str(LOG.verifier),) for part in ("--log", log)]
    process = subprocess.Popen([sys.executable, "-m", "witness", "--state", str(folder), "--port", str(port), *options])
    try:
        while is_free(port) and process.poll() is None:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(180) == 0


def _post(url: str, body: bytes) -> tuple[int, str]:
    try:
        with urlopen(Request(f"{url}/add-checkpoint", data=body), timeout=180) as response:  # noqa: S310 - our own process
            return response.status, response.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def _get(url: str) -> str:
    with urlopen(url, timeout=180) as response:  # noqa: S310 - our own process
        return str(response.read().decode())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A witness that has seen three leaves of the log, and knows nothing of any other."""
    with witness_process(tmp_path_factory.mktemp("witness")) as url:
        assert _post(url, Tree(9).body(0, 3))[0] == 200
        yield url


def test_a_growing_log_is_cosigned(tmp_path: Path) -> None:
    """Each continuation gets a signature of the witness's published key that states the time; the same size may come again."""
    tree = Tree(300)
    with witness_process(tmp_path) as url:
        key = parse_verifier(_get(f"{url}/vkey"))
        for old, new in ((0, 0), (0, 1), (1, 5), (5, 5), (5, 256), (256, 300)):
            began = int(time.time())
            status, line = _post(url, tree.body(old, new))

            assert status == 200, line
            stated = key.check(parse_note(tree.note(new)).text, parse_signature(line).signature)
            assert began <= stated <= time.time()


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (Tree(9).body(0, 5), 409, "3\n"),
        (Tree(9).body(1, 2), 409, "3\n"),
        (Tree(9, "other").body(3, 9), 422, "did not grow"),
        (Tree(9, "other").body(3, 3), 409, "3\n"),
        (Tree(9).body(3, 9).replace(b"old 3", b"old 12"), 400, "beyond"),
        (Tree(9).body(3, 9, Signer("strata/unknown", LOG.key)), 404, "not one of ours"),
        (Tree(9).body(3, 9, Signer("strata/test", Ed25519PrivateKey.generate())), 403, "not signed"),
        (b"", 400, "not a request"),
        (b"old 3\nAAAA\n\n", 400, "32 bytes"),
        (b"old -1\n\n" + Tree(9).note(3).encode(), 400, "not a request"),
        (b"\xff\xfe", 400, "not a request"),
    ],
    ids=["skipped", "shrunk", "forked", "forked-same-size", "beyond", "unknown", "other-key", "empty", "short-hash", "negative", "no-text"],
)
def test_what_does_not_continue_the_log_is_refused(shared: str, body: bytes, status: int, text: str) -> None:
    """A log that forks, shrinks or is somebody else's gets no signature, and the status of the specification."""
    answer = _post(shared, body)

    assert answer[0] == status
    assert text in answer[1]


def test_a_long_body_is_refused_unread(shared: str) -> None:
    """Nobody fills the witness's memory."""
    assert _post(shared, b"x" * 70_000)[0] == 413


def test_what_was_signed_is_remembered(tmp_path: Path) -> None:
    """After a restart the witness has the same key and does not sign another past, nor a shorter one."""
    with witness_process(tmp_path) as url:
        key = _get(f"{url}/vkey")
        assert _post(url, Tree(9).body(0, 5))[0] == 200

    with witness_process(tmp_path) as url:
        assert _get(f"{url}/vkey") == key
        assert _post(url, Tree(9, "other").body(0, 7)) == (409, "5\n")
        assert _post(url, Tree(9).body(5, 9))[0] == 200


def test_a_changed_memory_stops_the_witness(tmp_path: Path) -> None:
    """A witness whose memory was edited does not start, and says so in one line."""
    with witness_process(tmp_path) as url:
        assert _post(url, Tree(9).body(0, 5))[0] == 200
    (memory,) = tmp_path.glob("*.checkpoint")
    memory.write_text(memory.read_text().replace("\n5\n", "\n4\n"))

    command = [sys.executable, "-m", "witness", "--state", str(tmp_path), "--port", "0", "--log", str(LOG.verifier)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)

    assert ended.returncode == 1
    assert ended.stderr.startswith("witness: ")
    assert ended.stderr.count("\n") == 1
