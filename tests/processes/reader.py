"""A program that reads documents again and again, each time in one read transaction, as reports and screens do.

Usage: python -m tests.processes.reader NODE_DB READS FILE. Appends a line to FILE for each read: nanoseconds on a clock
before and after, how many headers disagreed with their lines, and a word that tells one state of the data from another.
Ends after so many reads and when its standard input is closed.
"""

import select
import sqlite3
import sys
import time
from pathlib import Path

from tests.processes.paperwork import TORN

STATE = "SELECT count(*) || '/' || ifnull(sum(CAST(number_of_packs AS INTEGER)), 0) FROM invoice_line"


def main() -> None:
    """Reads."""
    database, reads, file = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30, isolation_level=None)
    done = 0
    with file.open("w", buffering=1) as told:
        while done < reads or not select.select([sys.stdin], [], [], 0)[0]:
            begin = time.monotonic_ns()
            connection.execute("BEGIN")
            torn = connection.execute(TORN).fetchone()[0]
            state = connection.execute(STATE).fetchone()[0]
            connection.execute("ROLLBACK")
            told.write(f"{begin} {time.monotonic_ns()} {torn} {state}\n")
            done += 1
            time.sleep(0.0003)


if __name__ == "__main__":
    main()
