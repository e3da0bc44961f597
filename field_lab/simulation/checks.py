"""The invariants I1 to I5 and I7 to I10, asked of the databases themselves: most at every step, some after healing.

One connection has every node's database attached and looks only at those that have changed since the last step. What a
pair of nodes must have in common is asked in one snapshot of all of them.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

from central_node.storage.attempts import SET_ASIDE
from engine.limits import FRAME_BYTES_MAX, LINEAGE_TOKENS, WINDOW_FRAMES
from engine.storage.digests import DigestLedger
from engine.storage.echoes import MARKED
from engine.storage.feeds import PUT
from field_lab.simulation.counters import Counters
from field_lab.simulation.truth import Broken, Truth

CENTRAL = "node1"
MARK = "of a stranger"
"""What a hostile site writes into every record, so that it is known wherever it turns up."""

# What each query finds must not be. {site} and {number} are those of the site that is asked.
_AT_EACH = {
    "I5, documents whose lines do not fit them": (
        "SELECT id, comment FROM {node}.invoice AS i WHERE CAST(comment AS INTEGER) <>"
        " (SELECT count(*) FROM {node}.invoice_line AS l WHERE l.invoice_id = i.id)"
    ),
    "I5, lines without a document": (
        "SELECT id FROM {node}.invoice_line WHERE invoice_id NOT IN (SELECT id FROM {node}.invoice)"
    ),
    "a flag that opens the triggers was committed": (
        "SELECT applying, administering FROM {node}.sync_flag WHERE applying OR administering"
    ),
    "I2, records went back to an older version, or changed without a new one": (
        "SELECT r.table_name, r.id FROM {node}.sync_record AS r JOIN seen AS s ON s.node = '{node}'"
        " AND s.table_name = r.table_name AND s.id = r.id WHERE (r.term, r.counter) < (s.term, s.counter)"
        # What a stranger says of what is gone already may have another random part, which decides nothing.
        " OR ((r.term, r.term_id, r.counter) = (s.term, s.term_id, s.counter) AND r.hash <> s.hash)"
    ),
    "I9, parts of more than one frame, or of more than a frame, are staged": (
        "SELECT peer FROM {node}.sync_staged GROUP BY peer"
        f" HAVING count(DISTINCT hash) > 1 OR sum(length(content)) > {FRAME_BYTES_MAX}"
    ),
    "I9, more frames wait than a window": (
        f"SELECT count(*) FROM {{node}}.sync_frame HAVING count(*) > {WINDOW_FRAMES + 1}"
    ),
    "documents of others were written by a stranger": (
        f"SELECT id FROM {{node}}.stock_line WHERE batch = '{MARK}' AND store_id <> :stranger"
        f" UNION ALL SELECT id FROM {{node}}.item WHERE name = '{MARK}'"
        f" UNION ALL SELECT id FROM {{node}}.invoice WHERE their_reference = '{MARK}' AND store_id <> :stranger"
    ),
}
_AT_CENTRAL = {
    "documents diverged": (
        f"SELECT table_name, id FROM {CENTRAL}.sync_held WHERE code = 'DIVERGED' AND site <> :stranger_site"
    ),
    "I3, documents under another term than their store's": (
        f"SELECT 'stock_line', d.id FROM {CENTRAL}.stock_line AS d JOIN {CENTRAL}.store_copy AS k"
        f" ON k.store_id = d.store_id AND k.type = 'active' JOIN {CENTRAL}.sync_record AS r"
        " ON r.table_name = 'stock_line' AND r.id = d.id WHERE (r.term, r.term_id) <> (k.term, k.term_id)"
        f" UNION ALL SELECT 'invoice', d.id FROM {CENTRAL}.invoice AS d JOIN {CENTRAL}.store_copy AS k"
        f" ON k.store_id = d.store_id AND k.type = 'active' JOIN {CENTRAL}.sync_record AS r"
        " ON r.table_name = 'invoice' AND r.id = d.id WHERE (r.term, r.term_id) <> (k.term, k.term_id)"
    ),
    "I9, more lineage tokens are offered than are kept": (
        f"SELECT site FROM {CENTRAL}.central_offered GROUP BY site HAVING count(*) > {LINEAGE_TOKENS}"
    ),
}
_AT_PAIR = {
    "I1, acknowledged changes are not at the central": (
        f"SELECT s.table_name, s.id FROM {{node}}.sync_record AS s LEFT JOIN {CENTRAL}.sync_record AS c"
        " ON c.table_name = s.table_name AND c.id = s.id WHERE s.acked_frame > 0 AND s.writer_site = :site AND"
        " (c.id IS NULL AND NOT s.deleted"
        # Deleted twice, and the frame with the return was superseded by a whole document: deleted is deleted.
        " OR (c.term, c.counter) < (s.term, s.counter) AND NOT (s.deleted AND c.deleted)"
        " OR ((c.term, c.term_id, c.counter) = (s.term, s.term_id, s.counter) AND c.hash <> s.hash))"
    ),
    "I8, the position is beyond a change that is neither applied nor kept in mind": (
        f"SELECT t.name, m.table_name, m.id FROM {{node}}.sync_scope AS t JOIN {CENTRAL}.sync_scope AS f"
        f" ON f.name = t.name JOIN {CENTRAL}.central_subscription AS u ON u.site = :site AND u.scope = t.name"
        f" AND u.generation = t.generation JOIN {CENTRAL}.sync_membership AS m ON m.scope = f.scope AND m.position > 0"
        f" AND m.position <= t.position AND m.state < 2 JOIN {CENTRAL}.sync_record AS c"
        " ON c.table_name = m.table_name AND c.id = m.id LEFT JOIN {node}.sync_record AS s"
        " ON s.table_name = m.table_name AND s.id = m.id WHERE (s.id IS NULL AND NOT c.deleted"
        " OR (s.term, s.counter) < (c.term, c.counter))"
        " AND NOT EXISTS (SELECT 1 FROM {node}.sync_want AS w WHERE w.id = iif(m.root_id = '', m.id, m.root_id))"
        " AND NOT EXISTS (SELECT 1 FROM {node}.sync_outbox AS o WHERE o.table_name = m.table_name AND o.id = m.id)"
        " AND NOT EXISTS (SELECT 1 FROM {node}.sync_in_flight AS o WHERE o.table_name = m.table_name AND o.id = m.id)"
        " AND NOT EXISTS (SELECT 1 FROM {node}.sync_held AS h WHERE h.id = iif(m.root_id = '', m.id, m.root_id))"
    ),
    "I7, digests differ at equal positions": (
        "SELECT t.name, d.table_name FROM {node}.sync_scope AS t"
        f" JOIN {CENTRAL}.sync_scope AS f ON f.name = t.name AND f.position = t.position"
        f" JOIN {CENTRAL}.central_subscription AS u ON u.site = :site AND u.scope = t.name"
        f" AND u.generation = t.generation JOIN {CENTRAL}.sync_digest AS d ON d.scope = f.scope"
        " LEFT JOIN {node}.sync_digest AS e ON e.scope = t.scope AND e.table_name = d.table_name"
        " WHERE (ifnull(e.count, 0) <> d.count OR (d.count AND e.sum <> d.sum))"
        f" AND (SELECT value FROM {{node}}.sync_meta WHERE key = 'acknowledged') ="
        f" (SELECT frame_number FROM {CENTRAL}.central_site WHERE site = :site)"
        " AND NOT EXISTS (SELECT 1 FROM {node}.sync_want) AND NOT EXISTS (SELECT 1 FROM {node}.sync_held)"
    ),
}
_HELD = f"SELECT table_name, id, site, ready, code FROM {CENTRAL}.sync_held"


class Checks:
    """Looks at the databases of a world. Close it before a database is taken away."""

    def __init__(self, counters: Counters, truths: Mapping[int, Truth], stranger: tuple[int, str]) -> None:
        self._counters, self._truths = counters, truths
        self._values = {"stranger": stranger[1], "stranger_site": stranger[0]}
        self._connection = sqlite3.connect(":memory:", uri=True, isolation_level=None, cached_statements=512)
        self._connection.execute(
            "CREATE TABLE seen (node, table_name, id, term, term_id, counter, hash, PRIMARY KEY (node, table_name, id))"
        )
        self._versions: dict[int, int] = {}
        self._held: set[tuple[str, str, int]] = set()

    def follow(self, number: int, path: Path) -> None:
        """A node's database is there."""
        self._connection.execute("ATTACH ? AS " + f"node{number}", (f"file:{path}?mode=ro",))

    def leave(self, number: int) -> None:
        """A node's database is taken away."""
        self._versions.pop(number, None)
        self._connection.execute(f"DETACH node{number}")

    def close(self) -> None:
        """Ends looking."""
        self._connection.close()

    # --- at every step ------------------------------------------------------------------------------------------------

    def step(self, numbers: Iterable[int]) -> None:
        """What holds at every moment, asked of the nodes that are there. Raises Broken."""
        there = list(numbers)
        changed = [number for number in there if self._has_changed(number)]
        if not changed:
            return
        self._connection.execute("BEGIN")
        try:
            for number in changed:
                self._check_node(number)
            if 1 in there:
                for number in there:
                    if number > 1 and (1 in changed or number in changed):
                        self._ask(_AT_PAIR, number)
        finally:
            self._connection.execute("COMMIT")

    def _has_changed(self, number: int) -> bool:
        version = self._connection.execute(f"PRAGMA node{number}.data_version").fetchone()[0]
        before, self._versions[number] = self._versions.get(number), version
        return bool(before != version)

    def _ask(self, queries: Mapping[str, str], number: int) -> None:
        for what, query in queries.items():
            text = query.replace("{node}", f"node{number}")
            found = self._connection.execute(text, self._values | {"site": number}).fetchmany(4)
            if found:
                raise Broken(f"node {number}: {what}: {found}")

    def _check_node(self, number: int) -> None:
        self._ask(_AT_EACH, number)
        if number == 1:
            self._ask(_AT_CENTRAL, number)
            self._watch_held()
        self._connection.execute(
            f"INSERT OR REPLACE INTO seen SELECT 'node{number}', table_name, id, term, term_id, counter, hash"
            f" FROM node{number}.sync_record WHERE writer_site <> :stranger_site",
            self._values,
        )
        if number in self._truths:
            truth = self._truths[number]
            truth.check(truth.read(self._connection, f"node{number}"), f"I1, I2, node {number}")
        self._check_digests(number)

    def _watch_held(self) -> None:
        rows = self._connection.execute(_HELD).fetchall()
        held = {(row[0], row[1], row[2]) for row in rows}
        stranger = self._values["stranger_site"]
        for key in self._held - held:
            if key[2] != stranger:
                self._counters.count("held document woken")
        for key in held - self._held:
            if key[2] == stranger:
                self._counters.count("document of a stranger held")
        self._held = held

    def _check_digests(self, number: int) -> None:
        node, ledger = f"node{number}", _Recomputed()
        for scope, table, record_hash in self._connection.execute(
            f"SELECT m.scope, m.table_name, r.hash FROM {node}.sync_membership AS m"
            f" JOIN {node}.sync_record AS r USING (table_name, id)"
            f" WHERE m.state IN ({PUT}, {MARKED}) AND r.deleted = 0"
        ):
            ledger.add(scope, table, record_hash)
        query = f"SELECT scope, table_name, count, sum FROM {node}.sync_digest WHERE count <> 0"
        stored = {(row[0], row[1]): (row[2], row[3]) for row in self._connection.execute(query)}
        recomputed = ledger.sums()
        if recomputed != stored:
            keys = sorted(key for key in recomputed.keys() | stored.keys() if recomputed.get(key) != stored.get(key))
            raise Broken(f"node {number}: I7, stored digests are not those of the records: {keys[:5]}")

    # --- after healing ------------------------------------------------------------------------------------------------

    def healed(self, sites: Mapping[int, str]) -> None:
        """What holds when nothing is under way any more: copies are like their owners', and nobody has more. Raises
        Broken."""
        for number, store in sites.items():
            truth = self._truths[number]
            truth.check(truth.read(self._connection, CENTRAL), f"I1, I10, the central's copy of {store}")
            owned = self._truths[1]
            found = owned.read(self._connection, f"node{number}")
            owned_here = {key: row for key, row in owned.rows.items() if key[0] != "store" or key[1] == store}
            if found != owned_here:
                keys = sorted(key for key in found.keys() | owned_here.keys() if found.get(key) != owned_here.get(key))
                raise Broken(f"I1, I4, I10: site {number} does not have the central's records as they are: {keys[:4]}")
            for table in ("stock_line", "invoice"):
                query = f"SELECT id FROM node{number}.{table} WHERE store_id <> ?"
                if foreign := self._connection.execute(query, (store,)).fetchmany(3):
                    raise Broken(f"I4: site {number} has documents of other stores: {foreign}")
        held = [key for key in self._held if key[2] in sites and key[0] != SET_ASIDE]
        if held:
            raise Broken(f"documents stay held: {held[:4]}")


class _Recomputed(DigestLedger):
    """Digests made from nothing."""

    def sums(self) -> dict[tuple[int, str], tuple[int, bytes]]:
        """(scope, table) -> (records, sum) of what was added."""
        return {key: (count, (total % (1 << 128)).to_bytes(16, "big")) for key, (count, total) in self._changes.items()}
