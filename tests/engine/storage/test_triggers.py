"""Laws 1 and 2 at one database: every form of every statement is refused by name or captured exactly, whatever the
program that wrote it has set on its connection."""

import sqlite3
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import pytest

from engine.catalogue.model import Kind
from engine.rules.authority import Rule, rule_of
from engine.storage.records import Key
from field_lab.core_catalogue import core_catalogue
from tests.engine.storage.nodes import (
    Contents,
    capture_flaws,
    execute,
    read_contents,
    undone,
)
from tests.engine.storage.settings import EVERY_COMBINATION, EVERY_PAIR, Settings
from tests.engine.storage.statements import Effect, Statement, every_statement

CENTRAL_DATA: tuple[Key, ...] = (("unit", "unused"), ("item", "item-1"), ("name", "unused"))
"""An item in use is switched off; units, names and stores that are in use are not deleted (test_in_use.py)."""
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
        return None if self.allowed else rule_of(core_catalogue()[self.key[0]])

    def __str__(self) -> str:
        return f"{self.node}:{self.key[0]}:{self.key[1]}"


STORE_RECORDS: tuple[Key, ...] = (
    ("store", "unused"),
    ("name_visibility", "far@own"),
    ("item_visibility", "item-1@own"),
)
TARGETS = (
    *(Target("site", key, False) for key in (*CENTRAL_DATA, *STORE_RECORDS, *CONFIGURATION, *store_data("far"))),
    *(Target("site", key, True) for key in store_data("own")),
    *(Target("central", key, False) for key in (*CONFIGURATION, *store_data("far"))),
    *(Target("central", key, True) for key in (*CENTRAL_DATA, *STORE_RECORDS, *store_data("own"))),
)
TARGETS_IN_FULL = tuple(
    target for target in TARGETS if target.node == "site" and target.key[0] in ("item", "invoice", "invoice_line")
)


@pytest.fixture(name="nodes")
def both_nodes(site: sqlite3.Connection, central: sqlite3.Connection) -> dict[str, sqlite3.Connection]:
    return {"site": site, "central": central}


def refused(connection: sqlite3.Connection, target: Target, rule: Rule, settings: Settings) -> list[str]:
    """What is wrong with the refusal of every statement. They share a transaction: none of them may change anything."""
    before, found = read_contents(connection), []
    with undone(connection):
        settings.apply_in_transaction(connection)
        for statement in statements(target, before):
            error = execute(connection, statement.sql, statement.values)
            if error != rule.text and (error or statement.effect is not Effect.NOTHING):
                found.append(f"{statement.sql} ({settings}): {error or 'passed'}")
        after = read_contents(connection)
    return found if before == after else [*found, f"{settings}: something was changed"]


def captured(connection: sqlite3.Connection, target: Target, settings: Settings, tables: list[str]) -> list[str]:
    """What is wrong with the capture of every statement, as far as these tables show it."""
    before, found = read_contents(connection, tables), []
    for statement in statements(target, before):
        with undone(connection):
            settings.apply_in_transaction(connection)
            error = execute(connection, statement.sql, statement.values)
            after = read_contents(connection, tables)
        conflict = f"UNIQUE constraint failed: {target.key[0]}.id" if statement.effect is Effect.CONFLICT else ""
        flaws = [] if error == conflict else [f"said {error or 'nothing'!r}"]
        flaws += capture_flaws(before, after, statement.changes(target.key, (target.key[0], "new-1"), before))
        found += [f"{statement.sql} ({settings}): {flaw}" for flaw in flaws]
    return found


def statements(target: Target, contents: Contents) -> Iterator[Statement]:
    return every_statement(core_catalogue()[target.key[0]], contents.rows[target.key], "new-1")


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_every_statement_with_every_pair_of_settings(nodes: dict[str, sqlite3.Connection], target: Target) -> None:
    connection, every_table = nodes[target.node], list(core_catalogue().tables)
    for settings in EVERY_PAIR:
        settings.apply(connection)
        if target.rule is not None:
            assert refused(connection, target, target.rule, settings) == []
        else:
            assert captured(connection, target, settings, every_table) == []


@pytest.mark.parametrize("target", TARGETS_IN_FULL, ids=str)
def test_every_statement_with_every_combination(nodes: dict[str, sqlite3.Connection], target: Target) -> None:
    connection = nodes[target.node]
    for settings in EVERY_COMBINATION:
        settings.apply(connection)
        if target.rule is not None:
            assert refused(connection, target, target.rule, settings) == []
        else:
            assert captured(connection, target, settings, ["invoice", "invoice_line"]) == []


def test_the_tables_of_cases_are_complete() -> None:
    names = Settings()._fields
    for one, other in combinations(names, 2):
        every = {(getattr(settings, one), getattr(settings, other)) for settings in EVERY_COMBINATION}
        assert {(getattr(settings, one), getattr(settings, other)) for settings in EVERY_PAIR} == every
    for node in ("site", "central"):  # one of each way; every other table: test_every_table.py
        kinds = {core_catalogue()[target.key[0]].kind for target in TARGETS if target.node == node}
        assert kinds == {Kind.CENTRAL, Kind.CENTRAL_STORE, Kind.STORE, Kind.SYNC}
