"""A site whose messages are carried by hand; see exchange.py."""

import shutil
import sqlite3
from functools import partial
from pathlib import Path

from packhorse.sync.v1 import document_pb2, session_pb2

from engine.errors import Code, PeerProblem
from engine.session.frames import pack, unpack
from engine.storage.chain import stored_frames
from engine.storage.database import Result, Work, snapshot, transact
from engine.storage.eviction import Place, evict_some, reach_checkpoint
from engine.storage.positions import positions_hash, read_positions
from engine.storage.push import cut_frame
from engine.storage.receive import Received, apply_pull
from engine.storage.records import Key, Writer, read_meta, write_meta
from engine.storage.settle import retry_deferred, settle
from engine.storage.sqlite_file import open_writer
from field_lab.core_catalogue import core_catalogue

NOW = 1_000
PLENTY = 10_000


class Node:
    """One database."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = self._open()

    def _open(self) -> sqlite3.Connection:
        connection = open_writer(self.path)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    def write(self, work: Work[Result]) -> Result:
        """Runs work in one transaction."""
        return transact(self.connection, work)

    def read(self, work: Work[Result]) -> Result:
        """Runs work in one snapshot."""
        return snapshot(self.connection, work)

    def edit(self, *statements: str) -> None:
        """One transaction of another program."""
        self.write(lambda connection: [connection.execute(statement) for statement in statements])

    def one(self, query: str, *values: object) -> object:
        """The first column of the first row, or None."""
        row = self.connection.execute(query, values).fetchone()
        return row[0] if row else None

    def rows(self, *tables: str) -> dict[Key, tuple[object, ...]]:
        """Every row of these tables, or of all synchronised ones."""
        return {
            (table, row[0]): row
            for table in tables or tuple(core_catalogue().tables)
            for row in self.connection.execute(f"SELECT * FROM {table}")
        }

    def dump(self) -> list[str]:
        """Everything in the database, to see that nothing was changed."""
        return list(self.connection.iterdump())

    def restart(self) -> None:
        """The process dies and starts again."""
        self.connection.close()
        self.connection = self._open()

    def backup(self, name: str) -> Path:
        """Copies the database as it is now."""
        copy = self.path.with_name(name)
        with sqlite3.connect(copy) as target:
            self.connection.backup(target)
        target.close()
        return copy

    def restore(self, backup: Path) -> None:
        """Puts a backup in the place of the database."""
        self.connection.close()
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        shutil.copyfile(backup, self.path)
        self.connection = self._open()


class SiteEnd(Node):
    """A site."""

    def __init__(self, path: Path, number: int) -> None:
        super().__init__(path)
        self.number = number
        self.me = Writer(number, read_meta(self.connection)["epoch"])

    def cut(self, records: int = 500) -> document_pb2.Frame | None:
        """Cuts the next frame."""
        return self.write(lambda c: cut_frame(c, core_catalogue(), self.number, NOW, (records, 1 << 20)))

    def frames(self) -> list[document_pb2.Frame]:
        """The frames that are not acknowledged, with the bytes that they were cut with."""
        return self.read(lambda c: stored_frames(c, 0, PLENTY))

    def settle(self, told: session_pb2.Acknowledgement) -> int:
        """Stores an acknowledgement."""
        return self.write(lambda c: settle(c, told, self.number, self.me.epoch).records)

    def hello(self) -> session_pb2.Hello:
        """What opens a session."""

        def read(connection: sqlite3.Connection) -> session_pb2.Hello:
            meta, positions = read_meta(connection), read_positions(connection)
            return session_pb2.Hello(
                site=self.number,
                epoch=bytes.fromhex(self.me.epoch),
                lineage_token=bytes.fromhex(meta.get("lineage_token", "")),
                era=int(meta.get("era", "0")),
                tables=list(core_catalogue().tables),
                position_count=len(positions),
                positions_hash=positions_hash((p.scope, p.generation, p.position) for p in positions),
                configuration=next((p for p in positions if p.scope == f"site/{self.number}"), None),
                last_acknowledged=int(meta["acknowledged"]),
                clock_milliseconds=NOW * 1000,
            )

        return self.read(read)

    def take_welcome(self, welcome: session_pb2.Welcome) -> list[session_pb2.FeedPosition]:
        """Stores what Welcome brings, in one transaction; returns the position table where it was asked for.

        Raises PeerProblem with CHAIN_BROKEN as `site_node.session` does.
        """

        def store(connection: sqlite3.Connection) -> list[session_pb2.FeedPosition]:
            for told in welcome.missed:
                settle(connection, told, self.number, self.me.epoch)
            if int(read_meta(connection)["acknowledged"]) != welcome.last_applied:
                raise PeerProblem(Code.CHAIN_BROKEN, "The central has applied what this site does not know of.")
            write_meta(connection, lineage_token=welcome.lineage_token.hex())
            if not welcome.send_positions:
                write_meta(connection, era=str(welcome.era))
            retry_deferred(connection)
            if welcome.HasField("configuration"):
                body = unpack(document_pb2.PullBody, welcome.configuration.body, welcome.configuration.hash)
                apply_pull(connection, core_catalogue(), self.me, body, NOW)
            return read_positions(connection) if welcome.send_positions else []

        return self.write(store)

    def apply(self, body: document_pb2.PullBody, era: int | None = None) -> Received:
        """Applies a pull frame; the era is that of the central which sent it."""
        packed = unpack(document_pb2.PullBody, *pack(body))

        def apply(connection: sqlite3.Connection) -> Received:
            received = apply_pull(connection, core_catalogue(), self.me, packed, NOW)
            if era is not None:
                write_meta(connection, era=str(era))
            return received

        return self.write(apply)

    def evict(self) -> None:
        """What a checkpoint lets go, piece by piece."""
        place = Place() if self.write(lambda c: reach_checkpoint(c, looks_at_hidden=True)) else None
        while place is not None:
            place = self.write(partial(evict_some, catalogue=core_catalogue(), place=place, now=NOW))
