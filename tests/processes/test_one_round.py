"""Unary Push and Pull: the same machine, one round per call, over TLS to a real daemon; responses get lost."""

import random
from collections.abc import AsyncIterator
from typing import NamedTuple

import grpc
import pytest
from packhorse.sync.v1 import document_pb2, session_pb2

from engine.rpc.token import read_token
from field_lab.country import Country
from tests.processes.round_client import RoundClient
from tests.processes.supplies import BADILI, one

pytestmark = pytest.mark.processes


class Tablet(NamedTuple):
    """A country and the client that calls its central."""

    country: Country
    client: RoundClient


@pytest.fixture
async def tablet(country: Country) -> AsyncIterator[Tablet]:
    told = (await country.central.must("site", "add", "DIR", "tablet", "--json")).json
    token = read_token(str(told["token"]))
    await country.assign(BADILI, int(told["site"]))
    credentials = grpc.ssl_channel_credentials(root_certificates=token.ca_certificate)
    options = [("grpc.ssl_target_name_override", "packhorse-central")]
    async with grpc.aio.secure_channel(f"127.0.0.1:{country.grpc_port}", credentials, options=options) as channel:
        client = RoundClient(channel, token.secret)
        await client.enrol()
        yield Tablet(country, client)


def names(messages: list[session_pb2.CentralMessage]) -> list[str | None]:
    return [message.WhichOneof("message") for message in messages]


async def test_a_tablet_pulls_and_pushes_with_unary_calls(tablet: Tablet) -> None:
    country, client = tablet
    await client.pull_all()
    items = one(country.central.database, "SELECT count(*) FROM item")
    assert sum(table == "item" for table, _ in client.records) == items > 0
    client.count(BADILI, [f"tablet-{number}" for number in range(50)])
    answers = await client.push()
    assert names(answers) == ["welcome", "acknowledgement"] and not client.outcomes
    assert one(country.central.database, "SELECT count(*) FROM stock_line") == 50
    await client.pull_all()
    assert client.checkpoint is not None and client.checkpoint.last_frame == 1 and client.checkpoint.held == 0


async def test_lost_responses_lose_and_double_nothing(tablet: Tablet) -> None:
    """Every second answer never arrives: the client shows the lineage token that it has, sends what it knows of."""
    country, client = tablet
    chance = random.Random(20)
    await client.pull(lost=True)
    await client.pull_all()
    for number in range(12):
        client.count(BADILI, [f"tablet-{number}-{line}" for line in range(5)])
        for _ in range(chance.randrange(3)):
            await client.push(lost=True)
        if chance.random() < 0.5:
            await client.pull(lost=chance.random() < 0.5)
        if chance.random() < 0.5:
            await client.push()
    await client.push()
    assert not client.frames and client.acknowledged == 12 and not client.outcomes
    assert one(country.central.database, "SELECT count(*) FROM stock_line") == 60
    twice = "SELECT count(*) FROM sync_record WHERE table_name = 'stock_line' AND counter > 1"
    assert one(country.central.database, twice) == 0
    await client.pull_all()
    assert client.checkpoint is not None and client.checkpoint.last_frame == 12


async def test_more_frames_than_a_window_are_taken_in_one_call(tablet: Tablet) -> None:
    _, client = tablet
    await client.pull_all()
    for number in range(30):
        client.count(BADILI, [f"tablet-{number}"])
    answers = await client.push()
    assert names(answers) == ["welcome", *["acknowledgement"] * 30] and client.acknowledged == 30


async def test_what_is_wrong_is_said_in_the_response(tablet: Tablet) -> None:
    country, client = tablet
    await client.pull_all()
    client.count(BADILI, ["good"])
    gap = document_pb2.Frame(number=9, hash=b"h" * 32, previous_number=7, previous_hash=b"g" * 32, body=b"nothing")
    client.frames.append(gap)
    problem = (await client.push(lost=True))[-1].problem
    assert problem.code == "CHAIN_BROKEN" and "9" in problem.sentence
    del client.frames[-1]
    client.token, token = bytes(32), client.token
    refused = await client.push(lost=True)
    assert names(refused) == ["problem"] and refused[0].problem.code == "LINEAGE_BROKEN"
    client.token = token
    await client.push()
    assert one(country.central.database, "SELECT count(*) FROM stock_line") == 1


async def test_a_call_without_a_hello_is_refused(tablet: Tablet) -> None:
    _, client = tablet
    client._hello = lambda: session_pb2.SiteMessage(goodbye=session_pb2.Goodbye(code="DRAINING"))  # type: ignore[method-assign]
    answers = await client.push(lost=True)
    assert names(answers) in ([], ["problem"])
