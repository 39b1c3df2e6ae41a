"""Be CocoIndex over the benchmark's table, with LanceDB behind it: `cocoindex_app.py DSN FOLDER`, in an environment that has both.

Its PostgreSQL source reads the whole table, so it is asked to update once a second. Vectors are numbers from a hash, which cost
nothing: the encoder's time is not part of its figures.
"""  # noqa: INP001 - a script

import asyncio
import hashlib
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cocoindex as coco
import numpy as np
import pyarrow as pa
from cocoindex.connectors import lancedb, postgres

DSN, FOLDER = sys.argv[1], Path(sys.argv[2])
POLL_SECONDS = 1.0
POOL = coco.ContextKey[Any]("pool")
DATABASE = coco.ContextKey[Any]("database")


@dataclass
class Product:
    """A row of the table."""

    id: int
    name: str
    body: str
    audience: str


@dataclass
class Indexed:
    """A row of the index."""

    id: int
    name: str
    body: str
    audience: str
    vector: Annotated[list[float], lancedb.LanceType(pa.list_(pa.float32(), 384), None)]


@coco.lifespan
async def lifespan(builder: coco.EnvironmentBuilder) -> AsyncIterator[None]:
    """Connect both sides."""
    builder.settings.db_path = FOLDER / "state"
    async with await postgres.create_pool(DSN) as pool:
        builder.provide(POOL, pool)
        builder.provide(DATABASE, await lancedb.connect_async(str(FOLDER / "lance")))
        yield


@coco.fn(memo=True)
async def embed(text: str) -> list[float]:
    """Return a unit vector that depends on the text."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    vector = np.random.default_rng(seed).standard_normal(384).astype("float32")
    return [float(number) for number in vector / np.linalg.norm(vector)]


@coco.fn(memo=True)
async def process(product: Product, table: Any) -> None:
    """Index one row."""
    vector = await embed(f"{product.name}\n{product.body}")
    table.declare_row(row=Indexed(product.id, product.name, product.body, product.audience, vector))


@coco.fn
async def app_main() -> None:
    """Index every row that is there now."""
    schema = await lancedb.TableSchema.from_class(Indexed, primary_key=["id"])
    target = await lancedb.mount_table_target(DATABASE, "products", schema)
    source = postgres.PgTableSource(coco.use_context(POOL), table_name="products", row_type=Product)
    await coco.mount_each(process, source.fetch_rows().items(lambda product: product.id), target)


async def main() -> None:
    """Update once a second until killed."""
    app = coco.App(coco.AppConfig(name="Products"), app_main)
    while True:
        started = time.monotonic()
        await app.update()
        await asyncio.sleep(max(started + POLL_SECONDS - time.monotonic(), 0.0))


if __name__ == "__main__":
    asyncio.run(main())
