"""A country in a box: a central node and sites as real processes with their own directories, on this machine.

The demo and the tests use it; everything in it goes through the programs that an operator uses. What is asked of a
daemon again and again goes through its local door, as those programs do: each would take half a second to start.
"""

import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any, NamedTuple

from engine.rpc.local_channel import execute
from field_lab.link import LinkConditions, SpoiledLink

START_SECONDS = 30.0
STOP_SECONDS = 30.0


class Done(NamedTuple):
    """A command that has ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """What it printed with --json. Raises ValueError with everything it said where that is no JSON."""
        try:
            result: dict[str, Any] = json.loads(self.stdout)
        except json.JSONDecodeError as error:
            raise ValueError(f"exit code {self.exit_code}: {self.stdout}{self.stderr}") from error
        return result


class Node:
    """One node: its directory, its commands, its daemon."""

    def __init__(self, module: str, directory: Path, environment: dict[str, str]) -> None:
        self.module, self.directory, self.environment = module, directory, environment
        self.log = directory.with_name(directory.name + ".log")
        self._daemon: asyncio.subprocess.Process | None = None

    @property
    def database(self) -> Path:
        """The SQLite database, which other programs may open."""
        return self.directory / "node.db"

    @property
    def process_id(self) -> int:
        """Of the daemon. Raises RuntimeError where none was started."""
        if self._daemon is None:
            raise RuntimeError(f"no daemon of {self.directory} was started")
        return self._daemon.pid

    @property
    def is_running(self) -> bool:
        """Whether the daemon that was started is still there."""
        return self._daemon is not None and self._daemon.returncode is None

    async def command(self, *words: str, input_seconds: float = 300.0) -> Done:
        """Runs a command of the node's program with the directory where the word DIR stands."""
        arguments = [str(self.directory) if word == "DIR" else word for word in words]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", self.module, *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=self.environment,
        )  # fmt: skip
        stdout, stderr = await asyncio.wait_for(process.communicate(), input_seconds)
        return Done(process.returncode or 0, stdout.decode(), stderr.decode())

    async def must(self, *words: str) -> Done:
        """Runs a command that has to succeed. Raises RuntimeError with what it said."""
        done = await self.command(*words)
        if done.exit_code:
            raise RuntimeError(f"{self.module} {' '.join(words)} ended with {done.exit_code}: {done.stderr}")
        return done

    async def start(self, *options: str) -> None:
        """Starts the daemon and waits until it serves. Raises RuntimeError with the end of its log."""
        with self.log.open("ab") as log:
            begin = log.tell()
            self._daemon = await asyncio.create_subprocess_exec(
                sys.executable, "-m", self.module, "serve", str(self.directory), *options,
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment,
            )  # fmt: skip
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while b'"event": "serving"' not in self.log.read_bytes()[begin:]:
            if not self.is_running or asyncio.get_running_loop().time() > deadline:
                raise RuntimeError(f"the daemon did not start: {self.log.read_text()[-2000:]}")
            await asyncio.sleep(0.02)

    async def stop(self) -> int:
        """Asks the daemon to end and waits for it; returns its exit code. Harmless where none runs."""
        if self._daemon is None:
            return 0
        if self._daemon.returncode is None:
            self._daemon.terminate()
        code = await asyncio.wait_for(self._daemon.wait(), STOP_SECONDS)
        self._daemon = None
        return code

    async def kill(self) -> None:
        """Ends the daemon as a power cut would: SIGKILL."""
        if self._daemon is not None and self._daemon.returncode is None:
            self._daemon.kill()
            await self._daemon.wait()
        self._daemon = None

    async def status(self) -> dict[str, Any]:
        """What `status --json` says."""
        if self.is_running:
            return await execute(self.directory, "status", {})
        return (await self.must("status", "DIR", "--json")).json


class SiteNode(Node):
    """A site, and the link over which it reaches the central."""

    def __init__(self, number: int, directory: Path, environment: dict[str, str], link: SpoiledLink) -> None:
        super().__init__("site_node", directory, environment)
        self.number, self.link = number, link

    async def sync(self) -> Done:
        """`sync --json`."""
        return await self.command("sync", "DIR", "--json")


class Country:
    """A central node and its sites. Use it as an async context manager: leaving it ends every process it started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"PACKHORSE_STATE": str(folder / "state"), "PYTHONUNBUFFERED": "1"}
        self.environment.pop("PACKHORSE_TRACE", None)
        self.grpc_port, self.web_port = free_port(), free_port()
        self.central = Node("central_node", folder / "central", self.environment)
        self.sites: list[SiteNode] = []

    async def __aenter__(self) -> "Country":
        self.folder.mkdir(parents=True, exist_ok=True)
        addresses = ("--grpc", f"127.0.0.1:{self.grpc_port}", "--web", f"127.0.0.1:{self.web_port}")
        await self.central.must("init", "DIR", *addresses)
        await self.central.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        for node in (*self.sites, self.central):
            await node.kill()
        for site in self.sites:
            await site.link.stop()

    async def expect(self, name: str, conditions: LinkConditions | None = None) -> tuple[SiteNode, str]:
        """Adds a site at the central and opens a link for it; returns the site and its enrolment token."""
        told = await execute(self.central.directory, "site add", {"name": name})
        link = SpoiledLink(("127.0.0.1", self.grpc_port), conditions or LinkConditions())
        await link.start()
        site = SiteNode(int(told["site"]), self.folder / f"site-{told['site']}", self.environment, link)
        self.sites.append(site)
        return site, str(told["token"])

    async def join(self, site: SiteNode, token: str) -> Done:
        """`site-node join` over the site's link."""
        central = f"127.0.0.1:{site.link.port}"
        return await site.command("join", "DIR", "--central", central, "--token", token, "--json")

    async def join_and_kill(self, site: SiteNode, token: str) -> None:
        """Kills `site-node join` as soon as the directory is a site's: next to nothing has been pulled then."""
        words = ("join", str(site.directory), "--central", f"127.0.0.1:{site.link.port}", "--token", token)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", site.module, *words,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, env=site.environment,
        )  # fmt: skip
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while not (site.directory / "node.toml").exists():
            if process.returncode is not None or asyncio.get_running_loop().time() > deadline:
                raise RuntimeError(f"joining failed with {process.returncode}")
            await asyncio.sleep(0.01)
        process.kill()
        await process.wait()

    async def import_file(self, table: str, file: Path, *options: str) -> dict[str, Any]:
        """Imports a CSV file at the central."""
        if options:
            return (await self.central.must("import", "DIR", table, str(file), *options, "--json")).json
        plain = {"table": table, "file": str(file), "mapping": {}, "settings": {}, "last_wins": ""}
        return await execute(self.central.directory, "import", plain)

    async def assign(self, store_id: str, site: int, central: str = "collector") -> None:
        """Makes a store active at a site. Raises the PackhorseError with which that is refused."""
        await execute(self.central.directory, "store assign", {"store": store_id, "site": site, "central": central})

    async def collect(self, store_id: str, seen_in: str, site: int) -> None:
        """Makes a store visible in one that is active at a site, and gives the site all of its data."""
        visible = {"table": "store", "id": store_id, "store": seen_in}
        await execute(self.central.directory, "visibility add", visible)
        chosen = {"store": store_id, "site": site, "sync_with": "active-collector"}
        await execute(self.central.directory, "store sync-with", chosen)

    async def until_agreed(self, seconds: float) -> bool:
        """Waits until the central says that every enrolled site is in agreement, and no daemon of a site has anything
        that the central cannot know of yet."""
        deadline = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < deadline:
            said = [await site.status() for site in self.sites if site.is_running]
            if not any(status["waiting_to_push"] for status in said) and (await self.central.status())["in_agreement"]:
                return True
            await asyncio.sleep(0.1)
        return False


def free_port() -> int:
    """A TCP port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
