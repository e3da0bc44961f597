"""Changes of the topology, as administrators make them: commands at the central, SQL at a primary that is a site."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from central_node.store_commands import StoreCommands
from engine.errors import Code, PackhorseError, Refused
from field_lab.core_catalogue import core_catalogue
from field_lab.oracle.copies import may_choose
from field_lab.simulation.countries.country import Country
from field_lab.simulation.countries.names import OFFICES
from field_lab.simulation.countries.rows import Writing
from field_lab.simulation.machine import CENTRAL
from field_lab.simulation.truth import Broken

STORES_MAX = 12
_NO_CHANGE_OF_THE_TOPOLOGY = ("sync with refused", "store edited")
_OF_SYNC_WITH = (Code.STORE_ACTIVE_THERE, Code.COPY_REQUIRED, Code.NOT_VISIBLE)


async def change(country: Country) -> None:
    """One change of the topology, if it is possible now."""
    drawn = country.chance.choices(_CHANGES, [change.weight for change in _CHANGES])[0]
    name = await drawn.make(country)
    country.chosen = {}
    if name:
        country.changes += name not in _NO_CHANGE_OF_THE_TOPOLOGY
        country.counters.count(f"change: {name}")


async def _command(country: Country, command: str, /, **arguments: Any) -> dict[str, Any]:
    """Runs a command of the central. Raises Refused."""
    node, machine = country.central, country.machines[CENTRAL]
    assert node is not None and machine.database is not None

    async def settled(result: dict[str, Any]) -> dict[str, Any]:
        await node.settle()
        return result

    commands = StoreCommands(machine.database, core_catalogue(), settled).by_name()
    outcome: dict[str, Any] | PackhorseError = await machine.spawn(_outcome(commands[command](arguments)), command)
    if isinstance(outcome, PackhorseError):
        raise outcome
    return outcome


async def _outcome(work: Awaitable[dict[str, Any]]) -> dict[str, Any] | PackhorseError:
    try:
        return await work
    except PackhorseError as error:
        return error


def _site(country: Country) -> int:
    return country.chance.choice([CENTRAL, *country.numbers])


def _store(country: Country) -> str:
    return country.chance.choice(sorted(country.copies().stores))


def _rows(country: Country, number: int, query: str, *values: object) -> list[Any]:
    return country.program(number).execute(query, values).fetchall()


# --- stores -----------------------------------------------------------------------------------------------------------


async def _add(country: Country) -> str:
    known = len(_rows(country, country.primary, "SELECT id FROM store"))
    if known >= STORES_MAX or known < len(country.copies().stores):
        return ""  # there is no room, or the primary has not got all stores yet
    store = f"store-{known + 1}"
    mode = country.chance.choice(("store", "store", "dispensary"))
    keys = [("name", store), ("store", store)]
    if country.primary == CENTRAL:
        await _command(country, "store add", name=store, code="", mode=mode, id=store)
        country.note_rows(CENTRAL, keys)
        return "store added"

    def add(writing: Writing) -> None:
        writing.connection.execute("INSERT INTO name (id, name, type) VALUES (?, ?, 'store')", (store, store))
        values = (store, store, store, mode)
        writing.connection.execute("INSERT INTO store (id, name, name_id, mode) VALUES (?, ?, ?, ?)", values)
        for key in keys:
            writing.touch(*key)

    country.note(country.primary, country.write(country.primary, add))
    return "store added"


async def _edit(country: Country) -> str:
    """A name or, where nothing is left out because of it, the mode."""
    store, chance = _store(country), country.chance
    leaves_out = _rows(country, CENTRAL, "SELECT 1 FROM store_copy WHERE store_id = ? AND excludes_transactions", store)
    modes = _rows(country, country.primary, "SELECT mode FROM store WHERE id = ?", store)
    if not modes:
        return ""
    column, value = "name", f"name {chance.randrange(1000)}"
    if not leaves_out and chance.random() < 0.5:
        column, value = "mode", "store" if modes[0][0] == "dispensary" else "dispensary"
    if country.primary == CENTRAL:
        await _command(country, "store edit", store=store, **{column: value})
        country.note_rows(CENTRAL, [("store", store)])
    else:

        def edit(writing: Writing) -> None:
            writing.connection.execute(f"UPDATE store SET {column} = ? WHERE id = ?", (value, store))
            writing.touch("store", store)

        country.note(country.primary, country.write(country.primary, edit))
    return "store edited" if column == "name" else "store becomes a dispensary or ceases to be one"


async def _assign(country: Country) -> str:
    copies, chance = country.copies(), country.chance
    active = {store: number for (store, number), copy in copies.types.items() if copy == "active"}
    waiting = sorted(copies.stores - active.keys())
    possible = waiting or [store for store in sorted(active) if not country.has_data(store)]
    pairs = [(store, site) for store in possible for site in sorted(copies.sites) if active.get(store) != site]
    if not pairs:
        return ""
    store, site = chance.choice(pairs)
    drawn = chance.random()
    if drawn < 0.4:  # where something has a copy already that is visible in the store that comes
        kind = chance.choice(("active", "collector", "collector", "transfer"))
        held = sorted(pair for pair, copy in copies.types.items() if copy == kind and pair[1] not in copies.holding_all)
        coming = [(other, number) for seen, number in held for other in sorted(copies.seen_in.get(seen, ()))]
        store, site = chance.choice([pair for pair in coming if pair in pairs] or [(store, site)])
    elif drawn < 0.7:  # where something may lose its copy, because the store goes in which it was visible
        watching = {other for others in copies.seen_in.values() for other in others}
        store, site = chance.choice([pair for pair in pairs if pair[0] in watching] or [(store, site)])
    former = active.get(store)
    if former is not None and (_is_editing(country, former) or _is_editing(country, site)):
        return ""  # the administrator has asked: something is not sent yet
    central = chance.choice(("collector", "collector", "transfer"))
    chosen = {(store, site): "active"}
    if former is not None:
        chosen[store, former] = "none"
    if site != CENTRAL:
        chosen[store, CENTRAL] = central
    country.chosen = chosen
    try:
        await _command(country, "store assign", store=store, site=site, central=central)
    except Refused as error:
        if error.code is Code.STORE_HAS_RECORDS:
            return ""
        raise
    return "store active for the first time" if former is None else "store without data active elsewhere"


def _is_editing(country: Country, number: int) -> bool:
    return bool(_rows(country, number, "SELECT 1 FROM sync_outbox LIMIT 1"))


# --- copies -----------------------------------------------------------------------------------------------------------


async def _sync_with(country: Country) -> str:
    store, site = _store(country), _site(country)
    wanted = country.chance.choice(("none", "transfer", "active-collector", "active-collector"))
    before = country.copies()
    if before.viewers(store, site) == frozenset() and country.chance.random() < 0.8:  # most choose what can be chosen
        seen = [pair for pair in before.types if before.viewers(*pair) and before.type_at(*pair) != "active"]
        store, site = country.chance.choice(sorted(seen)) if seen else (store, site)
    if _ends_collecting(country, store, site, wanted):
        return ""  # what the central has of a store is kept up to date
    is_active = before.type_at(store, site) == "active"
    copy = "active" if is_active else wanted.replace("active-", "")
    country.chosen = {(store, site): copy}
    try:
        await _command(country, "store sync-with", store=store, site=site, sync_with=wanted)
    except Refused as error:
        if error.code not in _OF_SYNC_WITH:
            raise
        country.chosen = {}
        refused = True
    else:
        refused = False
    after = country.copies()
    if after.viewers(store, site) != before.viewers(store, site) or _ends_collecting(country, store, site, wanted):
        return ""  # it has changed meanwhile: either answer is right
    if refused is may_choose(before, store, site, wanted):
        says = "refused" if refused else "done"
        raise Broken(f"sync with {wanted} of {store} for site {site} was {says}: {before.type_at(store, site)} before")
    if refused:
        return "sync with refused"
    if after.type_at(store, site) != copy:
        raise Broken(f"{store} is {after.type_at(store, site)} at {site} after sync with {wanted}")
    return f"sync with {wanted}"


def _ends_collecting(country: Country, store: str, site: int, wanted: str) -> bool:
    return site == CENTRAL and wanted == "transfer" and country.has_data(store)


async def _give_visibility(country: Country) -> str:
    store, other = _store(country), _store(country)
    offices = sorted(country.copies().stores.intersection(OFFICES))
    if offices and country.chance.random() < 0.5:
        other = country.chance.choice(offices)
    return await _visibility(country, "add", store, other)


async def _take_visibility(country: Country) -> str:
    pairs = sorted((store, other) for store, others in country.copies().seen_in.items() for other in others)
    if not pairs:
        return ""
    return await _visibility(country, "remove", *country.chance.choice(pairs))


async def _visibility(country: Country, what: str, store: str, other: str) -> str:
    """Makes a store visible in another one, or ends that."""
    if store == other or not _rows(country, country.primary, "SELECT 1 FROM store WHERE id = ?", store):
        return ""
    query = "SELECT id FROM name_visibility WHERE name_id = ? AND store_id = ?"
    there = [row[0] for row in _rows(country, country.primary, query, store, other)]
    if bool(there) is (what == "add"):
        return ""
    keys = [("name_visibility", name) for name in there or [f"{store}@{other}"]]
    if country.primary == CENTRAL and country.chance.random() < 0.7:
        await _command(country, f"visibility {what}", table="store", id=store, store=other)
        country.note_rows(CENTRAL, keys)
    else:

        def write(writing: Writing) -> None:
            for table, name in keys:
                if what == "add":
                    values = (name, other, store)
                    writing.connection.execute(f"INSERT INTO {table} (id, store_id, name_id) VALUES (?, ?, ?)", values)
                else:
                    writing.connection.execute(f"DELETE FROM {table} WHERE id = ?", (name,))
                writing.touch(table, name)

        country.note(country.primary, country.write(country.primary, write))
    return f"visibility of a store {'given' if what == 'add' else 'taken away'}"


async def _transactions(country: Country) -> str:
    """Leaves the transactions of a dispensary without data out, or includes them again."""
    query = "SELECT store_id, excludes_transactions FROM store_copy WHERE type = 'active' ORDER BY store_id"
    possible = [row for row in _rows(country, CENTRAL, query) if row[1] or not country.has_data(row[0])]
    if not possible:
        return ""
    store, excludes = country.chance.choice(possible)
    await _command(country, "store include-transactions", store=store, included=bool(excludes))
    return "transactions included again" if excludes else "transactions left out"


class _Change(NamedTuple):
    weight: int
    make: Callable[[Country], Awaitable[str]]


_CHANGES = (
    _Change(3, _add),
    _Change(2, _edit),
    _Change(8, _assign),
    _Change(6, _sync_with),
    _Change(6, _give_visibility),
    _Change(4, _take_visibility),
    _Change(1, _transactions),
)
