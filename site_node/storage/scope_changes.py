"""What a site can say of scopes that it has gained or lost: what is fetched, what goes, what stays nevertheless."""

import sqlite3
from typing import Any

from engine.catalogue.model import Catalogue
from engine.errors import Code, sentence
from engine.reporting import estimated
from engine.rules.eviction import Fate
from engine.storage.eviction import CLOSED

_SHOWN = 20


def scope_changes(connection: sqlite3.Connection, catalogue: Catalogue) -> dict[str, Any]:
    """`fetching`: scopes that no checkpoint has shown to be whole yet, at most 20. `evicting`: records that are still
    to be looked at, an estimate. `left_behind`: documents, the first ones with a sentence. `hidden`: records that are
    kept only because documents here refer to them."""
    left_behind = _left_behind(connection, catalogue)
    query = "SELECT count(*) FROM sync_hidden WHERE why = ?"
    fetching = connection.execute(
        f"SELECT name FROM sync_scope WHERE generation > 0 AND filled = 0 ORDER BY scope LIMIT {_SHOWN}"
    )
    return {
        "fetching": [row[0] for row in fetching],
        **estimated("evicting", _evicting(connection)),
        "left_behind": len(left_behind),
        "left_behind_documents": [
            {"table": table, "id": record_id, "code": Code.LEFT_BEHIND, "sentence": _sentence(table, record_id)}
            for table, record_id in left_behind[:_SHOWN]
        ],
        "hidden": connection.execute(query, (Fate.NOT_VISIBLE,)).fetchone()[0],
    }


def _evicting(connection: sqlite3.Connection) -> int:
    noted = connection.execute("SELECT count(*) FROM sync_left").fetchone()[0]
    closed = connection.execute(
        "SELECT ifnull(sum(d.count), 0) FROM sync_digest AS d JOIN sync_scope AS s USING (scope)"
        " WHERE s.generation = ?",
        (CLOSED,),
    ).fetchone()[0]
    return max(int(noted), int(closed))


def _left_behind(connection: sqlite3.Connection, catalogue: Catalogue) -> list[tuple[str, str]]:
    rows = connection.execute("SELECT table_name, id FROM sync_hidden WHERE why = ?", (Fate.LEFT_BEHIND,))
    return [(row[0], row[1]) for row in rows if row[0] not in catalogue or not catalogue[row[0]].parent]


def _sentence(table: str, record_id: str) -> str:
    what = f"{table} {record_id} is no longer this site's to have, and the central node does not have it as it is here."
    return sentence(Code.LEFT_BEHIND, what)
