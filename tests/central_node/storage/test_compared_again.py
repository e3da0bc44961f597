"""A feed is compared once in a session, and again when something came or the subscription began again."""

from packhorse.sync.v1 import session_pb2

from central_node.storage.checkpoints import Compared, compared_in, read_checkpoint
from engine.catalogue.descriptors import catalogue
from engine.rules.topology import CopyType
from tests.engine.storage.central_end import Session
from tests.engine.storage.exchange import Exchange, exchange

COLLECTED = "store/store-3"


def checkpoint(country: Exchange, session: Session, compared: dict[str, Compared]) -> session_pb2.PullCheckpoint:
    tables = frozenset(catalogue().tables)
    found = country.central.read(lambda c: read_checkpoint(c, session.site, dict(session.cursors), compared, 1, tables))
    assert found is not None, "something was not sent yet"
    return found


def move(country: Exchange, session: Session, kind: CopyType) -> None:
    """The site of the session gets another copy of a store that is active elsewhere, within the session."""
    country.central.put_copy("store-3", session.site, kind)
    country.central.follow_topology(session)
    country.pull(country.site, session)


def test_what_was_compared_is_left_out_until_something_comes() -> None:
    with exchange() as country:
        session = country.connect(country.site)
        compared = compared_in(checkpoint(country, session, {}))
        assert set(compared) == set(session.cursors)
        assert not checkpoint(country, session, compared).feeds
        country.central.edit("UPDATE item SET name = 'other' WHERE id = 'item-1'")
        country.pull(country.site, session)
        assert set(compared_in(checkpoint(country, session, compared))) == {"central"}


def test_a_subscription_that_begins_again_is_compared_again_at_the_same_position() -> None:
    """A store leaves a site and comes back while one session is open; its feed has not moved, or is empty."""
    with exchange() as country:
        session = country.connect(country.site)
        move(country, session, CopyType.COLLECTOR)
        before = compared_in(checkpoint(country, session, {}))
        move(country, session, CopyType.TRANSFER)
        move(country, session, CopyType.COLLECTOR)
        again = compared_in(checkpoint(country, session, before))
        assert again[COLLECTED].position == before[COLLECTED].position
        assert again[COLLECTED].generation > before[COLLECTED].generation
