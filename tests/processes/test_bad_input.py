"""Wrong words typed by people: each gets a sentence and an exit code, never a traceback, and loses nothing."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import Code
from field_lab.country import Country, Done, Node, free_port
from tests.processes.supplies import BADILI, one, opened, write_stock
from tests.processes.test_main_job import joined

pytestmark = pytest.mark.processes


def assert_refused(done: Done, code: Code, exit_code: int = 1) -> None:
    """A sentence with its code, and nothing that looks like a program's inside."""
    assert done.exit_code == exit_code, done.stdout + done.stderr
    assert f"[{code}]" in done.stderr, done.stderr
    for inside in ("Traceback", "sqlite3.", "grpc", "Errno", 'File "'):
        assert inside not in done.stderr + done.stdout


async def test_joining_with_wrong_words(country: Country, tmp_path: Path) -> None:
    site, token = await country.expect("Badili")
    address = f"127.0.0.1:{site.link.port}"

    async def join(central: str, shown: str, *more: str) -> Done:
        return await site.command("join", "DIR", "--central", central, "--token", shown, *more)

    assert_refused(await join("nowhere", token), Code.ADDRESS_WRONG)
    assert_refused(await join(f"127.0.0.1:{free_port()}", token), Code.UNREACHABLE)
    assert_refused(await join(f"127.0.0.1:{country.web_port}", token), Code.UNREACHABLE)
    assert_refused(await join(address, "rubbish"), Code.TOKEN_UNREADABLE)
    assert_refused(await join(address, token[:-9]), Code.TOKEN_UNREADABLE)
    async with Country(tmp_path / "other country") as other:
        _, foreign = await other.expect("Elsewhere")
        assert_refused(await join(address, foreign), Code.CERTIFICATE_WRONG)
        wrong_ca = str(other.central.directory / "ca.pem")
        assert_refused(await join(address, token, "--ca", wrong_ca), Code.CERTIFICATE_WRONG)
        right_ca = str(country.central.directory / "ca.pem")
        assert_refused(await join(address, foreign, "--ca", right_ca), Code.TOKEN_UNKNOWN)
    assert not (site.directory / "node.toml").exists(), "nothing of it made the directory a node's"
    done = await country.join(site, token)
    assert done.exit_code == 0, done.stderr
    assert_refused(await country.join(site, token), Code.DIRECTORY_TAKEN)
    second = Node("site_node", tmp_path / "second", country.environment)
    done = await second.command("join", "DIR", "--central", address, "--token", token)
    assert_refused(done, Code.TOKEN_USED)


async def test_an_expired_token_is_refused(country: Country) -> None:
    site, token = await country.expect("Badili")
    await country.central.stop()
    script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('UPDATE central_site SET token_expires = 1'); c.commit()"  # noqa: E501
    subprocess.run([sys.executable, "-c", script, str(country.central.database)], check=True)
    await country.central.start()
    assert_refused(await country.join(site, token), Code.TOKEN_EXPIRED)


async def test_second_daemons_and_taken_ports(country: Country, tmp_path: Path) -> None:
    again = Node("central_node", country.central.directory, country.environment)
    assert_refused(await again.command("serve", "DIR"), Code.DIRECTORY_IN_USE)
    other = Node("central_node", tmp_path / "other", country.environment)
    await other.must("init", "DIR", "--grpc", f"127.0.0.1:{country.grpc_port}", "--web", f"127.0.0.1:{free_port()}")
    assert_refused(await other.command("serve", "DIR"), Code.PORT_IN_USE)
    third = Node("central_node", tmp_path / "third", country.environment)
    await third.must("init", "DIR", "--grpc", f"127.0.0.1:{free_port()}", "--web", f"127.0.0.1:{country.web_port}")
    assert_refused(await third.command("serve", "DIR"), Code.PORT_IN_USE)
    assert_refused(await again.command("init", "DIR"), Code.DIRECTORY_TAKEN)
    site = await joined(country, "Badili", BADILI)
    await site.start()
    second = Node("site_node", site.directory, country.environment)
    assert_refused(await second.command("serve", "DIR"), Code.DIRECTORY_IN_USE)


async def test_commands_on_directories_that_are_no_nodes(country: Country, tmp_path: Path) -> None:
    empty = Node("site_node", tmp_path / "empty", country.environment)
    for words in (("status", "DIR"), ("sync", "DIR"), ("serve", "DIR")):
        assert_refused(await empty.command(*words), Code.DIRECTORY_WRONG)
    wrong_role = Node("site_node", country.central.directory, country.environment)
    assert_refused(await wrong_role.command("status", "DIR"), Code.DIRECTORY_WRONG)
    broken = Node("central_node", tmp_path / "broken", country.environment)
    broken.directory.mkdir()
    (broken.directory / "node.toml").write_text("role = 'central'\nnmae = 'typo'\n")
    assert_refused(await broken.command("status", "DIR"), Code.CONFIGURATION_WRONG)
    (broken.directory / "node.toml").write_text("role = ")
    assert_refused(await broken.command("serve", "DIR"), Code.CONFIGURATION_WRONG)
    wrong: tuple[tuple[str, ...], ...] = (
        ("sitz",),
        ("site", "add"),
        ("store", "assign", "DIR", "x"),
        ("import", "DIR", "item"),
    )
    for typed in wrong:
        done = await country.central.command(*typed)
        assert done.exit_code == 2
        assert "Traceback" not in done.stderr


async def test_imports_and_assignments_that_do_not_fit(country: Country, tmp_path: Path) -> None:
    site = await joined(country, "Badili", BADILI)
    file = tmp_path / "items.csv"
    cases = {
        "id,nmae\na,b\n": "nmae",
        "name\nb\n": "id",
        "id,default_pack_size\na,1\nb,1e3\n": "line 3: column default_pack_size: '1e3'",
        "id,name\na,1\na,2\n": "line 3",
        "id,name\n,x\n": "line 2",
    }
    for text, part in cases.items():
        file.write_text(text)
        done = await country.central.command("import", "DIR", "item", str(file))
        assert_refused(done, Code.CSV_WRONG)
        assert part in done.stderr
    file.write_bytes("id,name\na,\xe9\n".encode("latin-1"))
    assert_refused(await country.central.command("import", "DIR", "item", str(file)), Code.CSV_WRONG)
    assert one(country.central.database, "SELECT count(*) FROM item WHERE id IN ('a', 'b')") == 0
    file.write_text("id,name\na,b\n")
    done = await site.command("import", "DIR", "item", str(file))
    assert_refused(done, Code.EDIT_REFUSED)
    assert "CENTRAL_DATA_ON_PRIMARY" in done.stderr
    assert_refused(await country.central.command("import", "DIR", "item", str(tmp_path / "no.csv")), Code.CSV_WRONG)
    assert_refused(await country.central.command("import", "DIR", "itme", str(file)), Code.CSV_WRONG)
    assert_refused(
        await country.central.command("store", "assign", "DIR", "no-such-store", "--site", "2"), Code.STORE_UNKNOWN
    )
    assert_refused(await country.central.command("store", "assign", "DIR", BADILI, "--site", "99"), Code.SITE_UNKNOWN)
    write_stock(site.database, BADILI, 1)
    assert (await site.sync()).exit_code == 0
    assert_refused(
        await country.central.command("store", "assign", "DIR", BADILI, "--site", "1"), Code.STORE_HAS_RECORDS
    )
    assert_refused(await country.central.command("site", "add", "DIR", "Badili"), Code.NAME_TAKEN)
    assert_refused(await country.central.command("site", "show", "DIR", "77"), Code.SITE_UNKNOWN)


async def test_a_site_import_where_the_rules_allow_it(country: Country, tmp_path: Path) -> None:
    site = await joined(country, "Badili", BADILI)
    file = tmp_path / "locations.csv"
    file.write_text(f'id,store_id,code,name\nshelf-1,{BADILI},A1,"Shelf, first"\n')
    done = await site.command("import", "DIR", "location", str(file), "--json")
    assert done.json["imported"] == 1
    assert (await site.sync()).exit_code == 0
    assert one(country.central.database, "SELECT name FROM location") == "Shelf, first"


async def test_a_database_of_a_newer_version_is_left_alone(country: Country, tmp_path: Path) -> None:
    site = await joined(country, "Badili", BADILI)
    await country.central.stop()
    file = tmp_path / "units.csv"
    file.write_text("id,name\nu,x\n")
    for node in (country.central, site):
        with opened(node.database) as connection:
            connection.execute("PRAGMA user_version = 99")
            before = list(connection.iterdump())
        for words in (("serve", "DIR"), ("status", "DIR"), ("import", "DIR", "unit", str(file))):
            assert_refused(await node.command(*words), Code.DATABASE_NEWER)
        with opened(node.database) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (99,)
            assert list(connection.iterdump()) == before, "an older program never touches a newer database"
    assert_refused(await site.sync(), Code.DATABASE_NEWER)


async def test_an_id_that_is_no_utf_8_is_refused_and_behind_the_triggers_it_stops_nothing(country: Country) -> None:
    site = await joined(country, "Badili", BADILI)
    insert = f"INSERT INTO location (id, store_id) VALUES (CAST(x'63ff' AS TEXT), '{BADILI}')"
    with opened(site.database) as connection:
        with pytest.raises(sqlite3.IntegrityError, match=r"in UTF-8 \(rule ID_REQUIRED\)"):
            connection.execute(insert)
        for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(insert)
    assert (await site.sync()).json["held"] == 1
    write_stock(site.database, BADILI, 3)
    done = await site.sync()
    assert done.json["pushed"] == 3 and done.json["waiting_to_push"] == 0, done.stdout
    (told,) = done.json["held_documents"]
    assert "an id is no UTF-8, first that of x'63FF'" in told["sentence"]
    assert one(country.central.database, "SELECT count(*) FROM stock_line") == 3
    with opened(site.database) as connection:
        connection.execute("DELETE FROM location WHERE id = CAST(x'63ff' AS TEXT)")
    assert (await site.sync()).json["in_agreement"], "once it is gone, nothing is left of it"


AS_NOBODY = """
import os, sys
import site_node.cli, site_node.commands, site_node.configuration, site_node.serve
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
try:
    open(os.path.join(sys.argv[2], "probe"), "w")
    sys.exit("a plain write succeeded: this proves nothing")
except PermissionError:
    site_node.cli.main()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_a_directory_that_cannot_be_written(country: Country) -> None:
    site = await joined(country, "Badili", BADILI)
    for path in (site.directory, *site.directory.iterdir()):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for parent in site.directory.parents:
        parent.chmod(parent.stat().st_mode | 0o055)
    for words in (("serve", str(site.directory)), ("sync", str(site.directory))):
        process = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, *words],
            capture_output=True,
            text=True,
            env=country.environment,
            check=False,
        )
        done = Done(process.returncode, process.stdout, process.stderr)
        assert_refused(done, Code.DIRECTORY_READ_ONLY)
