"""When ingestor switches to another encoder, queries follow without a restart and never mix two spaces."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from chassis import rpc
from chassis.errors import FailedPreconditionError
from encoders import Encoder
from encoders.encoder import default_directory
from knowledge.generations import Generation, Generations
from knowledge.lance import LanceIndex
from knowledge.preparation import cut, embed
from knowledge.schema import Document, Kind
from strata.gateway.v1.gateway_events_pb2 import Caller
from strata.retriever.v1 import retriever_service_pb2 as pb
from testkit.encoders import other_encoder
from testkit.nats import NatsServer

from .conftest import LONG_AGO, Put


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an encoder with other weights."""
    return other_encoder(default_directory(), tmp_path_factory.mktemp("other") / "model")


def _request(**fields: Any) -> pb.RetrieveRequest:
    caller = Caller(tenant="acme", labels=["public"])
    return pb.RetrieveRequest(caller=caller, query="When is the kettle boiling?", collections=["notices"], **fields)


async def test_queries_follow_a_switch_and_refuse_the_encoder_before(
    stub: Any, put: Put, bus: NatsServer, encoder: Encoder, other: Path
) -> None:
    """Before and after the switch the same passage is found, each time by the encoder that is served; the old one is refused by name."""
    put("kettle", "Kettle", "The kettle is boiling at ten in the morning.")
    before = await rpc.call(stub.Retrieve, _request(), timeout=180)
    folder, new = Path(bus.state_dir) / "knowledge", Encoder.load(other)
    document = Document("notices", Kind.FLUID, "kettle", "Kettle", "The kettle is boiling at ten in the morning.", labels=("public",))
    built = LanceIndex.create(folder, new.identity.key())
    built.replace(Kind.FLUID, {document.key: embed(cut(document, built.encoder, LONG_AGO), new)})
    generations = Generations(folder)
    generations.begin(Generation(encoder.identity.key()))

    generations.switch(Generation(new.identity.key(), str(other)))
    async with asyncio.timeout(240):
        while (after := await rpc.call(stub.Retrieve, _request(), timeout=180)).encoder == before.encoder:
            assert [passage.document_id for passage in after.passages] == ["kettle"]
            await asyncio.sleep(0.05)

    assert after.encoder == new.identity.key()
    assert [passage.document_id for passage in after.passages] == ["kettle"]
    with pytest.raises(FailedPreconditionError) as caught:
        await rpc.call(stub.Retrieve, _request(encoder=before.encoder), timeout=180)
    assert caught.value.code == "encoder_mismatch"
