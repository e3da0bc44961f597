"""A record is deleted and its id written again, at a site or at the central: everybody ends with what was written last,
however frames and pages are cut, answers lost and nodes restarted in between."""

from itertools import product
from typing import NamedTuple

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from packhorse.sync.v1 import session_pb2

from engine.rules.topology import CENTRAL_SITE, CopyType
from tests.engine.storage.central_end import Session
from tests.engine.storage.exchange import Exchange, exchange
from tests.engine.storage.site_end import Node, SiteEnd

WRITER, READER = 2, 3


class Thing(NamedTuple):
    """Something that is written, deleted and written again; `{}` stands for what tells one writing from another."""

    is_central: bool
    table: str
    id: str
    first: tuple[str, ...]
    again: tuple[str, ...]

    @property
    def delete(self) -> str:
        """The statement that deletes it."""
        return f"DELETE FROM {self.table} WHERE id = '{self.id}'"


def stock(number: int) -> Thing:
    values = f"('s{number}', 'store-{number}', 'item-1', '{{}}')"
    insert = f"INSERT INTO stock_line (id, store_id, item_id, batch) VALUES {values}"
    return Thing(number == CENTRAL_SITE, "stock_line", f"s{number}", (insert,), (insert,))


def invoice(number: int) -> Thing:
    header = (
        f"INSERT INTO invoice (id, store_id, name_id, comment) VALUES ('i{number}', 'store-{number}', 'name', '{{}}')"
    )
    a, b, c = (
        "INSERT INTO invoice_line (id, invoice_id, item_id, note)"
        f" VALUES ('{name}{number}', 'i{number}', 'item-1', '{{}}')"
        for name in "abc"
    )
    return Thing(number == CENTRAL_SITE, "invoice", f"i{number}", (header, a, b), (header, b, c))


def line(number: int) -> Thing:
    of = invoice(number)
    return Thing(of.is_central, "invoice_line", f"a{number}", of.first, of.first[1:2])


ITEM = ("INSERT INTO item (id, name, unit_id) VALUES ('x', '{}', 'each')",)
THINGS = {
    "stock": stock(WRITER),
    "document": invoice(WRITER),
    "line": line(WRITER),
    "item": Thing(True, "item", "x", ITEM, ITEM),
    "stock of the central": stock(CENTRAL_SITE),
    "document of the central": invoice(CENTRAL_SITE),
}
TABLES = ("item", "stock_line", "invoice", "invoice_line")


class Country:
    """The central, the site that writes and one that reads along, in a session each."""

    def __init__(self, country: Exchange) -> None:
        self.exchange, self.central = country, country.central
        for store in ("store-1", "store-2"):
            self.central.put_copy(store, READER, CopyType.COLLECTOR)
        self.central.put_copy("store-1", WRITER, CopyType.COLLECTOR)
        self.sessions: dict[int, Session] = {}
        for site in country.sites.values():
            country.synchronise(site)
            self.sessions[site.number] = country.connect(site)
        self.writer = country.sites[WRITER]
        self._edits = 0

    def edit(self, thing: Thing, *statements: str) -> None:
        """One transaction of a program where the thing is edited."""
        self._edits += 1
        node: Node = self.central if thing.is_central else self.writer
        Node.edit(node, *(statement.format(f"edit {self._edits}") for statement in statements))

    def has(self, thing: Thing) -> bool:
        """Whether it is there, where it is edited."""
        node: Node = self.central if thing.is_central else self.writer
        return (thing.table, thing.id) in node.rows(thing.table)

    def send(self, is_answered: bool = True) -> None:
        """The writer's oldest frame reaches the central, and its answer the writer, or not."""
        session = self.sessions[WRITER]
        last = int(str(self.central.one("SELECT frame_number FROM central_site WHERE site = ?", WRITER)))
        if frame := next((frame for frame in self.writer.frames() if frame.number > last), None):
            (told,) = self.central.take(session, frame)
            assert isinstance(told, session_pb2.Acknowledgement), told
            if is_answered and frame.number == self.writer.frames()[0].number:
                self.writer.settle(told)

    def read(self, site: SiteEnd, records: int) -> None:
        """The next page reaches a site. Nothing that is not routed is read."""
        self.central.route()
        session = self.sessions[site.number]
        if (body := self.central.page(session, records)) is not None:
            wants = site.apply(body, session.welcome.era).wants
            if wants:
                site.apply(self.central.wanted(session, wants))

    def cut_link(self) -> None:
        """Every session ends, and what was not acknowledged is lost."""
        for number, site in self.exchange.sites.items():
            self.sessions[number] = self.exchange.connect(site)

    def crash(self) -> None:
        """Every process dies and starts again."""
        for node in (self.central, *self.exchange.sites.values()):
            node.restart()
        self.cut_link()

    def agree(self) -> None:
        """Everything is said; then all have the same and nothing waits or is held."""
        for _ in range(2):
            sessions = {site: self.exchange.synchronise(site) for site in self.exchange.sites.values()}
        for site, session in sessions.items():
            assert self.exchange.differing(site, session) == []
            assert site.rows(*TABLES) == self.central.rows(*TABLES)


AFTER_DELETE = ("nothing", "cut", "sent", "acknowledged", "cut and crashed", "answer lost and crashed")


def happens(country: Country, thing: Thing, what: str) -> None:
    """What happens between the delete and the writing again."""
    if thing.is_central and what != "nothing":
        country.central.route()
    elif what != "nothing":
        country.writer.cut()
    if what in ("sent", "acknowledged", "answer lost and crashed"):
        country.send(is_answered=what == "acknowledged")
    if "crashed" in what:
        country.crash()


@pytest.mark.parametrize(("hears_of_it", "is_read"), [*product([False, True], repeat=2)])
@pytest.mark.parametrize("between", AFTER_DELETE)
@pytest.mark.parametrize("name", THINGS)
def test_what_was_written_again_is_everywhere(name: str, between: str, hears_of_it: bool, is_read: bool) -> None:
    thing = THINGS[name]
    with exchange() as made:
        country = Country(made)
        country.edit(thing, *thing.first)
        if hears_of_it:
            country.agree()
            country.cut_link()
        country.edit(thing, thing.delete)
        happens(country, thing, between)
        if is_read:
            for site in made.sites.values():
                country.read(site, 1)
        country.edit(thing, *thing.again)
        happens(country, thing, between)
        country.agree()
        assert country.has(thing)


STEPS = st.one_of(
    st.sampled_from([*THINGS]),
    st.sampled_from(["cut 1", "cut 3", "cut 500", "send", "send", "lose answer", "route", "cut link", "crash"]),
    st.sampled_from([f"read {site} {records}" for site, records in product((WRITER, READER), (1, 2, 500))]),
)


def step(country: Country, what: str) -> None:
    """One step of a plan; the name of a thing writes it, or deletes it where it is there."""
    match what.split():
        case ["cut", "link"]:
            country.cut_link()
        case ["cut", records]:
            country.writer.cut(int(records))
        case ["send"]:
            country.send()
        case ["lose", _]:
            country.send(is_answered=False)
        case ["route"]:
            country.central.route()
        case ["crash"]:
            country.crash()
        case ["read", site, records]:
            country.read(country.exchange.sites[int(site)], int(records))
        case _:
            write_or_delete(country, THINGS[what])


def write_or_delete(country: Country, thing: Thing) -> None:
    if country.has(thing):
        event("deleted")
        country.edit(thing, thing.delete)
    elif thing.table != "invoice_line":
        country.edit(thing, *thing.first)
    elif country.has(THINGS["document"]):
        country.edit(thing, *thing.again)


@given(st.lists(STEPS, min_size=5, max_size=40))
@settings(max_examples=40, deadline=None)
def test_however_frames_are_cut_everybody_ends_with_what_was_written_last(plan: list[str]) -> None:
    with exchange() as made:
        country = Country(made)
        for what in plan:
            step(country, what)
        country.agree()
