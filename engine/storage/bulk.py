"""Many rows into one table: as few statements as may be.

`executemany` begins, ends and unlocks the interpreter once for each row. With ROWS_AT_ONCE rows in one statement SQLite
needs a third less time for them, and nobody takes the interpreter away between two rows.
"""

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

ROWS_AT_ONCE = 50
"""More gain little, and each statement is kept prepared: some 40 KiB a table with 50 rows, 80 with 100."""


def insert_rows(
    connection: sqlite3.Connection, into: str, values: str, rows: Sequence[Sequence[object]], then: str = ""
) -> None:
    """Inserts rows in their order.

    Args:
        connection: inside the caller's transaction.
        into: the statement up to VALUES, e.g. "INSERT INTO sync_want (table_name, id)".
        values: the values of one row in brackets, with a question mark for each parameter.
        rows: the parameters of each row.
        then: what follows the values, e.g. ON CONFLICT.
    """
    whole = len(rows) - len(rows) % ROWS_AT_ONCE
    for start in range(0, whole, ROWS_AT_ONCE):
        parameters = list(chain.from_iterable(rows[start : start + ROWS_AT_ONCE]))
        connection.execute(_statement(into, values, then, ROWS_AT_ONCE), parameters)
    connection.executemany(_statement(into, values, then, 1), rows[whole:])


@lru_cache(maxsize=1024)
def _statement(into: str, values: str, then: str, rows: int) -> str:
    return f"{into} VALUES {', '.join([values] * rows)} {then}"
