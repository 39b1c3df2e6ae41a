"""CocoIndex on the table and changes of `bench_cdc.py`: how long each takes from its commit until LanceDB shows it.

`python services/ingestor/bench/bench_cocoindex.py --python ENVIRONMENT/bin/python [--changes 600] [--rate 50]`; that environment has
cocoindex, asyncpg and lancedb, which are no part of the product.
"""  # noqa: INP001 - a script

import argparse
import datetime as dt
import json
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import lancedb
import psycopg2
from change_load import Load, Look, Writer, percentiles, state, watch, writing
from change_rig import TABLE_SQL

from testkit.postgres import postgres_binaries, postgres_server


def looking(folder: Path, load: Load) -> Look:
    """Return what gives the place of every row of CocoIndex's table, by what the row says."""
    table = lancedb.connect(folder / "lance", read_consistency_interval=dt.timedelta(0)).open_table("products")

    def look() -> dict[int, int]:
        found = table.search().select(["id", "body", "audience"]).limit(None).to_arrow().to_pydict()
        rows = zip(found["id"], found["body"], found["audience"], strict=True)
        return {row: load.states.get((row, state(body, audience)), 0) for row, body, audience in rows}

    return look


def filled(folder: Path, rows: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the first rows are there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.5)
        try:
            if lancedb.connect(folder / "lance").open_table("products").count_rows() >= rows:
                return
        except (ValueError, RuntimeError, OSError):
            continue
    raise TimeoutError("the first rows are not there: " + (folder / "log").read_text()[-2000:])


def measured(python: str, dsn: str, folder: Path, changes: int, rate: float, rows: int) -> dict[str, Any]:
    """Run once."""
    load, stopping = Load(), threading.Event()
    connection = psycopg2.connect(dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute(TABLE_SQL)
    connection.close()
    changing = writing(Writer(dsn, rows, 7), load, changes, rate)
    started = time.monotonic()
    environment = {**os.environ, "COCOINDEX_DISABLE_USAGE_TRACKING": "1"}
    environment.pop("PYTHONPATH", None)
    uri = "postgresql://{user}@{host}:{port}/{dbname}".format(**dict(part.split("=") for part in dsn.split()))
    with (folder / "log").open("wb") as log:
        command = [python, str(Path(__file__).with_name("cocoindex_app.py")), uri, str(folder)]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        filled(folder, rows, process)
        first = time.monotonic() - started
        time.sleep(2.0)
        watching = threading.Thread(target=watch, args=(looking(folder, load), load, stopping))
        watching.start()
        changing.begin()
        changing.join()
        load_now, deadline = os.getloadavg()[0], time.monotonic() + 60
        while load.waiting and time.monotonic() < deadline:
            time.sleep(0.1)
        stopping.set()
        watching.join()
    finally:
        stopping.set()
        process.kill()
        process.wait()
    version = subprocess.run(
        [python, "-c", "import importlib.metadata as m; print(m.version('cocoindex'))"], capture_output=True, check=True
    )
    return {
        "cocoindex": version.stdout.decode().strip(), "changes": changes, "rate_asked": rate, "rows": rows,
        "first_load_seconds": round(first, 1), "seen": len(load.seen), "commit_to_searchable_ms": percentiles(load.lags()),
        "load_average": load_now,
    }  # fmt: skip


def main() -> None:
    """Print the figures of one run as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="Interpreter of an environment with cocoindex, asyncpg and lancedb.")
    parser.add_argument("--changes", type=int, default=600)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--rows", type=int, default=2_000)
    arguments = parser.parse_args()
    binaries = postgres_binaries()
    if binaries is None:
        raise SystemExit("PostgreSQL's initdb and postgres are not installed")
    with postgres_server(binaries) as postgres, tempfile.TemporaryDirectory() as folder:
        dsn = postgres.create_database("shop")
        found = measured(arguments.python, dsn, Path(folder), arguments.changes, arguments.rate, arguments.rows)
    print(json.dumps(found, indent=1))  # noqa: T201 - the result


if __name__ == "__main__":
    main()
