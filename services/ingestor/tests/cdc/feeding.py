"""Be a process that feeds an index from the bus until it is killed: `feeding.py FOLDER`, with the domains under FOLDER."""

import asyncio
import sys
from pathlib import Path

from chassis.messaging import connect
from encoders import Encoder
from ingestor import catalogue
from ingestor.cdc import mapping
from ingestor.cdc.declaration import FeedSettings
from ingestor.cdc.feed import Feed
from ingestor.ledger import Ledger
from ingestor.library import Library
from ingestor.settings import Settings
from knowledge.lance import LanceIndex


async def main(folder: Path) -> None:
    """Feed, and tidy as the service does."""
    encoder = Encoder.load(threads=1)
    index = LanceIndex.create(folder / "knowledge", encoder.identity.key())
    library = Library(index, encoder, Ledger(folder / "announcements.db"), longest_text_bytes=1_000_000)
    tables = mapping.load(folder / "domains", catalogue.load(folder / "domains"))
    bus = await connect(Settings(), "ingestor")
    feed = Feed(tables, index, library, folder / "ledger.db", bus, FeedSettings())

    async def tidy() -> None:
        while True:
            await asyncio.sleep(1.0)
            await asyncio.to_thread(library.tidy, patient=True)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(feed.run())
        tasks.create_task(tidy())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
