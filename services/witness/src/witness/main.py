"""The witness over HTTP, with nothing but the standard library: POST /add-checkpoint, GET /vkey, /livez, /readyz."""

import argparse
import signal
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from tlog.notes import InvalidNoteError, Verifier, parse_verifier
from witness.remembering import RefusedError, Witness, parse_request

_MOST_BYTES = 64 * 1024
_TIMEOUT_SECONDS = 10


class _Server(ThreadingHTTPServer):
    """A server that knows its witness."""

    def __init__(self, address: tuple[str, int], witness: Witness) -> None:
        super().__init__(address, _Handler)
        self.witness = witness


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: _Server
    timeout = _TIMEOUT_SECONDS
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Cosign a checkpoint or say why not."""
        length = self.headers.get("Content-Length", "")
        if self.path != "/add-checkpoint" or not length.isdigit() or int(length) > _MOST_BYTES:
            # What was not read would be taken for the next request.
            self.close_connection = True
            known = self.path == "/add-checkpoint"
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if known else HTTPStatus.NOT_FOUND
            self._answer(status, f"a length of at most {_MOST_BYTES} bytes is required\n" if known else "not found\n")
            return
        try:
            self._answer(HTTPStatus.OK, self.server.witness.add_checkpoint(parse_request(self.rfile.read(int(length)))))
        except RefusedError as error:
            if error.status == HTTPStatus.CONFLICT:
                self._answer(error.status, f"{error.known_size}\n", "text/x.tlog.size")
            else:
                self._answer(error.status, f"{error}\n")
        except (OSError, InvalidNoteError) as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, f"nothing can be remembered: {error}\n")

    def do_GET(self) -> None:
        """Tell the public key, and that the process is there."""
        if self.path == "/vkey":
            self._answer(HTTPStatus.OK, f"{self.server.witness.signer.verifier}\n")
        elif self.path in {"/livez", "/readyz"}:
            self._answer(HTTPStatus.OK, "ok\n")
        else:
            self._answer(HTTPStatus.NOT_FOUND, "not found\n")

    def _answer(self, status: HTTPStatus, text: str, content_type: str = "text/plain; charset=utf-8") -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing of what went well."""
        if len(args) > 1 and not str(args[1]).startswith("2"):
            sys.stderr.write(f"{self.address_string()} {format % args}\n")


def _log_keys(value: str) -> list[Verifier]:
    """Return the keys of `--log`: one as text, or those in the file that `@` names."""
    lines = Path(value[1:]).read_text().splitlines() if value.startswith("@") else [value]
    return [parse_verifier(line) for line in lines if line.strip()]


def main() -> None:
    """Witness until SIGTERM; what is wrong with the arguments or the folder is said in one line."""
    parser = argparse.ArgumentParser(prog="witness", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder of the key and of what is remembered; of this witness alone")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--name", default="", help="name of a key that is made now; empty makes one up")
    parser.add_argument("--log", action="append", required=True, help="verifier key of a log, or @FILE with one a line; may be repeated")
    arguments = parser.parse_args()
    try:
        keys = [key for value in arguments.log for key in _log_keys(value)]
        server = _Server((arguments.host, arguments.port), Witness(arguments.state, keys, name=arguments.name))
    except (OSError, InvalidNoteError) as error:
        sys.exit(f"witness: {error}")
    for number in (signal.SIGTERM, signal.SIGINT):
        # `shutdown` waits for the loop that this handler interrupts, hence the thread.
        signal.signal(number, lambda *_: Thread(target=server.shutdown).start())
    with server:
        server.serve_forever(poll_interval=0.2)
