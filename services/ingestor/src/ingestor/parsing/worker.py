"""The process that reads files, so that a hostile one can neither hang the service nor take its memory."""

import json
import os
import resource
import signal
import sys
from dataclasses import asdict
from typing import IO, Any

from ingestor.parsing.parsed import Limits, UnparsableError
from ingestor.parsing.reading import read

_MEMORY_BYTES = 2 * 1024**3
_LENGTH_BYTES = 8


def write_frame(stream: IO[bytes], data: bytes) -> None:
    """Write a length and as many bytes."""
    stream.write(len(data).to_bytes(_LENGTH_BYTES, "big"))
    stream.write(data)
    stream.flush()


def read_frame(stream: IO[bytes]) -> bytes:
    """Return the next frame; raise EOFError where the other side has ended."""
    length = stream.read(_LENGTH_BYTES)
    if len(length) < _LENGTH_BYTES:
        raise EOFError
    data = stream.read(int.from_bytes(length, "big"))
    if len(data) < int.from_bytes(length, "big"):
        raise EOFError
    return data


def _answer(request: dict[str, Any], data: bytes) -> dict[str, Any]:
    try:
        return asdict(read(data, request["name"], request["content_type"], Limits(**request["limits"])))
    except UnparsableError as error:
        return {"code": error.code, "message": str(error)}


def main() -> None:
    """Answer one request after the other until standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # Whatever a library prints must not get between the frames.
    os.dup2(2, 1)
    while True:
        try:
            request, data = json.loads(read_frame(requests)), read_frame(requests)
        except EOFError:
            return
        # The parent ends this process when time is up; where the parent is gone, this does.
        signal.alarm(int(request["seconds"]) + 2)
        answer = json.dumps(_answer(request, data)).encode()
        signal.alarm(0)
        write_frame(answers, answer)


if __name__ == "__main__":
    main()
