"""Follow-up work where tests give stores to sites by hand, whatever is visible there."""

import sqlite3

from central_node.storage.follow_up import do_follow_up
from engine.catalogue.descriptors import catalogue
from engine.rules.topology import Topology
from engine.storage.work import Processor


def follow_up(connection: sqlite3.Connection, topology: Topology) -> None:
    """Does what waits, but for copies that would come and go by themselves."""
    connection.execute("DELETE FROM sync_work WHERE processor = ?", (Processor.COPIES,))
    while do_follow_up(connection, catalogue(), topology)[1]:
        pass
