"""What each sentence of a script does. `SENTENCES` at the end lists them all."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from central_node.storage.copies import administering
from tests.scenarios import records
from tests.scenarios.records import KINDS, Kind
from tests.scenarios.scene import NotDone, Scene
from tests.scenarios.script import Sentence, Step

_STORE = KINDS["store"]
_SYNC_WITH = {"active/collector": "active-collector", "transfer": "transfer", "none": "none"}
_SHOWN = {"active": "active-collector", "collector": "active-collector", "transfer": "transfer"}

# --- the country ------------------------------------------------------------------------------------------------------


async def _sites(scene: Scene, sites: tuple[str, ...]) -> None:
    await scene.open(sites, stay_connected=False)


async def _connected_sites(scene: Scene, sites: tuple[str, ...]) -> None:
    await scene.open(sites, stay_connected=True)


async def _everybody_synchronises(scene: Scene) -> None:
    await scene.synchronise_all()


async def _synchronises(scene: Scene, site: str) -> None:
    await scene.synchronise(site)


async def _becomes_primary(scene: Scene, site: str) -> None:
    """Written into the sync preferences: there is no command for it yet."""
    program = scene.program(next(iter(scene.nodes)))
    program.execute("BEGIN IMMEDIATE")
    with administering(program):
        program.execute("UPDATE site SET is_primary = 0, term = 0, term_id = 0")
        program.execute(
            "UPDATE site SET is_primary = 1, term = 2, term_id = 2 WHERE id = ?", (str(scene.numbers[site]),)
        )
    program.execute("COMMIT")


async def _is_refused(scene: Scene, step: Step, because: str, code: str = "") -> None:
    try:
        await step.do(scene, *step.values)
    except NotDone as refused:
        said = str(refused)
        assert because in said and (not code or f"[{code}]" in said), f"it was refused with other words: {said}"
        return
    raise AssertionError("it was done")


# --- stores -----------------------------------------------------------------------------------------------------------


async def _create_store(scene: Scene, store: str) -> None:
    await scene.at_central("store", "add", "DIR", store, "--id", store, "--code", store)


async def _create_dispensary(scene: Scene, store: str) -> None:
    await scene.at_central("store", "add", "DIR", store, "--id", store, "--mode", "dispensary")


async def _create_store_named(scene: Scene, store: str, name: str) -> None:
    await scene.at_central("store", "add", "DIR", name, "--id", store)


async def _make_active(scene: Scene, store: str, site: str) -> None:
    await scene.at_central("store", "assign", "DIR", store, "--site", _number(scene, site))


async def _make_active_alone(scene: Scene, store: str, site: str, _central: str) -> None:
    await scene.at_central("store", "assign", "DIR", store, "--site", _number(scene, site), "--central", "transfer")


async def _synchronise_with(scene: Scene, store: str, site: str, sync_with: str) -> None:
    await scene.at_central("store", "sync-with", "DIR", store, "--site", _number(scene, site), _SYNC_WITH[sync_with])


async def _include_transactions(scene: Scene, store: str) -> None:
    await scene.at_central("store", "include-transactions", "DIR", store, "on")


async def _leave_transactions_out(scene: Scene, store: str) -> None:
    await scene.at_central("store", "include-transactions", "DIR", store, "off")


async def _edit_store(scene: Scene, column: str, store: str, value: str) -> None:
    await scene.at_central("store", "edit", "DIR", store, f"--{column}", value)


async def _edit_store_at(scene: Scene, column: str, store: str, value: str, site: str) -> None:
    with _edits():
        records.change(scene.program(site), _STORE, store, column, value)


async def _move_copy_by_hand(scene: Scene, store: str, kind: str, site: str) -> None:
    with _edits():
        copy = Kind("store_copy")
        records.change(scene.program(site), copy, f"{store}@{scene.numbers[site]}", "type", kind)


async def _copies_are(scene: Scene, store: str, copies: Mapping[str, str]) -> None:
    shown = await scene.at_central("store", "show", "DIR", store)
    expected = {scene.numbers[site]: kind for site, kind in copies.items()}
    found = {copy["site"]: copy["type"] for copy in shown["copies"]}
    assert found == expected, f"the copies are {found}"
    assert all(copy["sync_with"] == _SHOWN[copy["type"]] for copy in shown["copies"]), shown
    assert shown["site"] == next((site for site, kind in expected.items() if kind == "active"), None), shown


async def _transactions_are_included(scene: Scene, store: str) -> None:
    assert (await scene.at_central("store", "show", "DIR", store))["include_transactions"] is True


async def _transactions_are_left_out(scene: Scene, store: str) -> None:
    assert (await scene.at_central("store", "show", "DIR", store))["include_transactions"] is False


async def _store_record_is_at(scene: Scene, store: str, sites: tuple[str, ...]) -> None:
    _is_at_these_only(scene, _STORE, store, sites)


async def _store_says(scene: Scene, column: str, store: str, value: str, sites: tuple[str, ...]) -> None:
    _says(scene, _STORE, store, column, value, sites)


# --- visibility -------------------------------------------------------------------------------------------------------


async def _show_store(scene: Scene, store: str, seen_in: str) -> None:
    await scene.at_central("visibility", "add", "DIR", "store", store, "--in", seen_in)


async def _hide_store(scene: Scene, store: str, seen_in: str) -> None:
    await scene.at_central("visibility", "remove", "DIR", "store", store, "--in", seen_in)


async def _show(scene: Scene, kind: str, record_id: str, seen_in: str) -> None:
    await scene.at_central("visibility", "add", "DIR", _table(kind), record_id, "--in", seen_in)


async def _hide(scene: Scene, kind: str, record_id: str, seen_in: str) -> None:
    await scene.at_central("visibility", "remove", "DIR", _table(kind), record_id, "--in", seen_in)


async def _sees_store_at(scene: Scene, store: str, seen_in: str, sites: tuple[str, ...]) -> None:
    _is_at_these_only(scene, KINDS["visibility of name"], f"{store}@{seen_in}", sites)


async def _sees_store_nowhere(scene: Scene, store: str, seen_in: str) -> None:
    _is_at_these_only(scene, KINDS["visibility of name"], f"{store}@{seen_in}", ())


async def _visibility_is_at(scene: Scene, kind: str, record_id: str, seen_in: str, sites: tuple[str, ...]) -> None:
    _is_at_these_only(scene, KINDS[f"visibility of {kind}"], f"{record_id}@{seen_in}", sites)


async def _visibility_is_nowhere(scene: Scene, kind: str, record_id: str, seen_in: str) -> None:
    _is_at_these_only(scene, KINDS[f"visibility of {kind}"], f"{record_id}@{seen_in}", ())


# --- records ----------------------------------------------------------------------------------------------------------


async def _enter_in_store(scene: Scene, kind: str, record_id: str, store: str, site: str) -> None:
    with _edits():
        records.enter(scene.program(site), KINDS[kind], record_id, store)


async def _enter(scene: Scene, kind: str, record_id: str, site: str) -> None:
    with _edits():
        records.enter(scene.program(site), KINDS[kind], record_id)


async def _enter_line(scene: Scene, number: int, kind: str, record_id: str, site: str) -> None:
    with _edits():
        records.enter_line(scene.program(site), KINDS[kind], record_id, number)


async def _change(scene: Scene, column: str, kind: str, record_id: str, value: str, site: str) -> None:
    with _edits():
        records.change(scene.program(site), KINDS[kind], record_id, _column(column), value)


async def _delete(scene: Scene, kind: str, record_id: str, site: str) -> None:
    with _edits():
        records.delete(scene.program(site), KINDS[kind].table, record_id)


async def _delete_line(scene: Scene, number: int, kind: str, record_id: str, site: str) -> None:
    with _edits():
        records.delete(scene.program(site), KINDS[kind].lines, records.line_id(record_id, number))


async def _is_at(scene: Scene, kind: str, record_id: str, sites: tuple[str, ...]) -> None:
    _is_at_these_only(scene, KINDS[kind], record_id, sites)


async def _is_nowhere(scene: Scene, kind: str, record_id: str) -> None:
    _is_at_these_only(scene, KINDS[kind], record_id, ())


async def _record_says(
    scene: Scene, column: str, kind: str, record_id: str, value: str, sites: tuple[str, ...]
) -> None:
    _says(scene, KINDS[kind], record_id, _column(column), value, sites)


async def _has_lines(scene: Scene, kind: str, record_id: str, number: int, sites: tuple[str, ...]) -> None:
    for site in sites:
        found = len(records.read(scene.program(site), KINDS[kind], record_id)) - 1
        assert found == number, f"it has {found} lines at {site}"


# --- what the steps share ---------------------------------------------------------------------------------------------


def _number(scene: Scene, site: str) -> str:
    """The number of a site; a script may also name one that there is not."""
    return str(scene.numbers.get(site, 99))


def _table(kind: str) -> str:
    return KINDS[kind].table if kind in KINDS else kind.replace(" ", "_")


def _column(words: str) -> str:
    return words.replace(" ", "_")


@contextmanager
def _edits() -> Iterator[None]:
    """Around SQL that triggers may refuse. Raises NotDone with what they said."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise NotDone(str(error)) from error


def _is_at_these_only(scene: Scene, kind: Kind, record_id: str, sites: tuple[str, ...]) -> None:
    unknown = set(sites) - scene.nodes.keys()
    assert not unknown, f"nobody told of {unknown}"
    found = {site: rows for site in scene.nodes if (rows := records.read(scene.program(site), kind, record_id))}
    assert set(found) == set(sites), f"it is at {', '.join(found) or 'no site'}"
    assert len(set(found.values())) <= 1, f"it is not the same everywhere: {found}"
    assert all(len(rows) > 1 for rows in found.values()) or not kind.lines, "its lines are missing"


def _says(scene: Scene, kind: Kind, record_id: str, column: str, value: str, sites: tuple[str, ...]) -> None:
    found = {site: records.value_of(scene.program(site), kind, record_id, column) for site in sites}
    assert set(found.values()) == {value}, f"it is {found}"


SENTENCES = (
    Sentence("sites: {sites}", _sites),
    Sentence("sites that stay connected: {sites}", _connected_sites),
    Sentence("everybody synchronises", _everybody_synchronises),
    Sentence("{site} synchronises alone", _synchronises),
    Sentence("{site} becomes the primary", _becomes_primary),
    Sentence("it is refused that {sentence}, because {text}", _is_refused),
    Sentence("it is refused that {sentence}, because {text} [{code}]", _is_refused),
    Sentence("store {store} is created", _create_store),
    Sentence("store {store} is created with the name {text}", _create_store_named),
    Sentence("dispensary {store} is created", _create_dispensary),
    Sentence("store {store} is made active at {site}", _make_active),
    Sentence("store {store} is made active at {site}, and {site} holds its record only", _make_active_alone),
    Sentence("store {store} is synchronised with {site} as {sync with}", _synchronise_with),
    Sentence("transactions of store {store} are included in sync", _include_transactions),
    Sentence("transactions of store {store} are left out of sync", _leave_transactions_out),
    Sentence("the {column} of store {store} becomes {text}", _edit_store),
    Sentence("the {column} of store {store} becomes {text} at {site}", _edit_store_at),
    Sentence("the copy of store {store} becomes {text} by hand at {site}", _move_copy_by_hand),
    Sentence("store {store} is made visible in store {store}", _show_store),
    Sentence("store {store} is no longer visible in store {store}", _hide_store),
    Sentence("{kind} {id} is made visible in store {store}", _show),
    Sentence("{kind} {id} is no longer visible in store {store}", _hide),
    Sentence("a {kind} {id} is entered in store {store} at {site}", _enter_in_store),
    Sentence("a {kind} {id} is entered at {site}", _enter),
    Sentence("line {number} of {kind} {id} is entered at {site}", _enter_line),
    Sentence("the {column} of {kind} {id} becomes {text} at {site}", _change),
    Sentence("{kind} {id} is deleted at {site}", _delete),
    Sentence("line {number} of {kind} {id} is deleted at {site}", _delete_line),
    Sentence("copies of store {store}: {copies}", _copies_are),
    Sentence("store {store} includes its transactions in sync", _transactions_are_included),
    Sentence("store {store} leaves its transactions out of sync", _transactions_are_left_out),
    Sentence("the record of store {store} is at {sites} and nowhere else", _store_record_is_at),
    Sentence("the {column} of store {store} is {text} at {sites}", _store_says),
    Sentence("the visibility of store {store} in store {store} is at {sites} and nowhere else", _sees_store_at),
    Sentence("the visibility of store {store} in store {store} is nowhere", _sees_store_nowhere),
    Sentence("the visibility of {kind} {id} in store {store} is at {sites} and nowhere else", _visibility_is_at),
    Sentence("the visibility of {kind} {id} in store {store} is nowhere", _visibility_is_nowhere),
    Sentence("{kind} {id} is at {sites} and nowhere else", _is_at),
    Sentence("{kind} {id} is nowhere", _is_nowhere),
    Sentence("the {column} of {kind} {id} is {text} at {sites}", _record_says),
    Sentence("{kind} {id} has {number} lines at {sites}", _has_lines),
)  # fmt: skip
