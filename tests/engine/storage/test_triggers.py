"""Laws 1 and 2 at one database: every form of every statement is refused by name or captured exactly, whatever the
program that wrote it has set on its connection."""

import sqlite3
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import pytest

from engine.catalogue.descriptors import catalogue
from engine.rules.authority import RULE_OF_KIND, Rule
from engine.storage.records import Key
from tests.engine.storage.nodes import (
    TERMS,
    Contents,
    capture_flaws,
    central_database,
    execute,
    read_contents,
    refusal_flaws,
    site_database,
    undone,
)
from tests.engine.storage.settings import EVERY_COMBINATION, EVERY_PAIR, Settings
from tests.engine.storage.statements import CLAUSES, Effect, Statement, every_statement

CENTRAL_DATA: tuple[Key, ...] = (("unit", "unit-1"), ("item", "item-1"), ("name", "name-own"))
CONFIGURATION: tuple[Key, ...] = (("site", "2"), ("store_copy", "own@1"))


def store_data(store: str) -> tuple[Key, ...]:
    roots = (("location", f"location-{store}"), ("stock_line", f"stock-{store}"))
    return (
        *roots,
        ("invoice", f"invoice-1-{store}"),
        ("invoice_line", f"invoice-1-{store}-a"),
        ("stocktake", f"stocktake-1-{store}"),
        ("stocktake_line", f"stocktake-1-{store}-a"),
    )


class Target(NamedTuple):
    """A record at a node, and whether it may be edited there."""

    node: str
    key: Key
    allowed: bool

    @property
    def rule(self) -> Rule | None:
        return None if self.allowed else RULE_OF_KIND[catalogue()[self.key[0]].kind]

    def __str__(self) -> str:
        return f"{self.node}:{self.key[0]}:{self.key[1]}"


STORE_RECORDS: tuple[Key, ...] = (("store", "far"),)
TARGETS = (
    *(Target("site", key, False) for key in (*CENTRAL_DATA, *STORE_RECORDS, *CONFIGURATION, *store_data("far"))),
    *(Target("site", key, True) for key in store_data("own")),
    *(Target("central", key, False) for key in (*CONFIGURATION, *store_data("far"))),
    *(Target("central", key, True) for key in (*CENTRAL_DATA, *STORE_RECORDS, *store_data("own"))),
)
TARGETS_IN_FULL = tuple(
    target for target in TARGETS if target.node == "site" and target.key[0] in ("item", "invoice", "invoice_line")
)


@pytest.fixture(scope="module", name="nodes")
def open_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, sqlite3.Connection]]:
    folder = tmp_path_factory.mktemp("nodes")
    opened = {"site": site_database(folder / "site.db"), "central": central_database(folder / "central.db")}
    yield opened
    for connection in opened.values():
        connection.close()


def flaws_of(connection: sqlite3.Connection, target: Target, statement: Statement, before: Contents) -> list[str]:
    error = execute(connection, statement.sql, statement.values)
    after = read_contents(connection)
    if target.rule is not None and statement.effect is not Effect.NOTHING:
        return refusal_flaws(error, target.rule, before, after)
    if statement.effect is Effect.CONFLICT:
        text = f"UNIQUE constraint failed: {target.key[0]}.id"
        return ([] if error == text else [f"said {error!r}"]) + ([] if before == after else ["changed something"])
    if statement.effect is Effect.NOTHING and target.rule is not None and error:
        return refusal_flaws(error, target.rule, before, after)
    changes = statement.changes(target.key, (target.key[0], "new-1"), before)
    return [error] if error else capture_flaws(before, after, changes)


def check(connection: sqlite3.Connection, target: Target, settings: Settings) -> list[str]:
    settings.apply(connection)
    before = read_contents(connection)
    found = []
    for statement in every_statement(catalogue()[target.key[0]], before.rows[target.key], "new-1"):
        with undone(connection):
            settings.apply_in_transaction(connection)
            flaws = flaws_of(connection, target, statement, before)
        found += [f"{statement.sql} ({settings}): {flaw}" for flaw in flaws]
    return found


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_every_statement_with_every_pair_of_settings(nodes: dict[str, sqlite3.Connection], target: Target) -> None:
    for settings in EVERY_PAIR:
        assert check(nodes[target.node], target, settings) == []


@pytest.mark.parametrize("target", TARGETS_IN_FULL, ids=str)
def test_every_statement_with_every_combination(nodes: dict[str, sqlite3.Connection], target: Target) -> None:
    for settings in EVERY_COMBINATION:
        assert check(nodes[target.node], target, settings) == []


def test_the_tables_of_cases_are_complete() -> None:
    names = Settings()._fields
    for one, other in combinations(names, 2):
        every = {(getattr(settings, one), getattr(settings, other)) for settings in EVERY_COMBINATION}
        assert {(getattr(settings, one), getattr(settings, other)) for settings in EVERY_PAIR} == every
    for node in ("site", "central"):
        assert {target.key[0] for target in TARGETS if target.node == node} == set(catalogue().tables)
