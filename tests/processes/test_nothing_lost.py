"""What goes wrong in the field, on real daemons: damage, divergence, missing referents, power cuts, copies."""

import asyncio
import os
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from field_lab.country import Country, SiteNode
from field_lab.link import LinkConditions
from tests.processes.supplies import BADILI, one, opened, write_invoice, write_stock
from tests.processes.test_main_job import joined

pytestmark = pytest.mark.processes


async def until(condition: str, database: Path, expected: object, seconds: float = 30.0) -> None:
    """Waits until a query of another program gives a value."""
    deadline = time.monotonic() + seconds
    while (found := one(database, condition)) != expected:
        assert time.monotonic() < deadline, f"{condition} gave {found!r}, not {expected!r}"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("how", ["the apply flag", "a dropped trigger"])
async def test_f43_a_damaged_row_at_a_site_is_wanted_and_comes_back(country: Country, how: str) -> None:
    site = await joined(country, "Badili", BADILI)
    whole = one(site.database, "SELECT name FROM item ORDER BY id")
    with opened(site.database) as connection:
        connection.execute("BEGIN")
        if how == "the apply flag":
            connection.execute("UPDATE sync_flag SET applying = 1")
        else:
            connection.execute("DROP TRIGGER sync_item_before_update")
        connection.execute("UPDATE item SET name = 'damaged' WHERE id = (SELECT min(id) FROM item)")
        connection.execute(
            "DELETE FROM name WHERE id = (SELECT max(id) FROM name)"
        ) if how == "the apply flag" else None
        connection.execute("UPDATE sync_flag SET applying = 0")
        connection.execute("COMMIT")
    done = await site.sync()
    assert done.exit_code == 0, done.stdout
    assert done.json["in_agreement"]
    assert one(site.database, "SELECT name FROM item ORDER BY id") == whole
    assert one(site.database, "SELECT count(*) FROM name") == one(country.central.database, "SELECT count(*) FROM name")
    status = await site.status()
    assert status["kept_aside"] >= 1, "what was written there is kept"
    if how == "a dropped trigger":
        assert "sync_item_before_update" in status["schema_repaired"]
    with opened(site.database) as connection, pytest.raises(Exception, match="CENTRAL_DATA_ON_PRIMARY"):
        connection.execute("UPDATE item SET name = 'again'")


async def test_f43_an_uncaptured_edit_of_an_own_record_is_queued(country: Country) -> None:
    site = await joined(country, "Badili", BADILI)
    write_stock(site.database, BADILI, 3)
    assert (await site.sync()).exit_code == 0
    with opened(site.database) as connection:
        connection.execute("BEGIN")
        connection.execute("UPDATE sync_flag SET applying = 1")
        connection.execute("UPDATE stock_line SET batch = 'uncaptured' WHERE id = 'stock-00001'")
        connection.execute("UPDATE sync_flag SET applying = 0")
        connection.execute("COMMIT")
    assert (await site.sync()).exit_code == 0
    assert one(country.central.database, "SELECT batch FROM stock_line WHERE id = 'stock-00001'") == "uncaptured"


async def test_f43_a_row_damaged_at_the_central_comes_back_from_its_owner(country: Country) -> None:
    """Found at the start of the central, beside everything else; the site is asked in a checkpoint."""
    site = await joined(country, "Badili", BADILI)
    write_stock(site.database, BADILI, 3)
    write_invoice(site.database, BADILI, "damaged-invoice", lines=4)
    assert (await site.sync()).exit_code == 0
    tables = ("stock_line", "invoice", "invoice_line")
    whole = [one(site.database, f"SELECT group_concat(quote(id)) FROM {table}") for table in tables]
    await site.start()
    await country.central.kill()
    with opened(country.central.database) as connection:
        connection.execute("BEGIN")
        connection.execute("UPDATE sync_flag SET applying = 1")
        connection.execute("UPDATE stock_line SET batch = 'damaged' WHERE id = 'stock-00001'")
        connection.execute("DELETE FROM invoice_line WHERE id = (SELECT max(id) FROM invoice_line)")
        connection.execute("UPDATE sync_flag SET applying = 0")
        connection.execute("COMMIT")
    await country.central.start()
    await until("SELECT count(*) FROM sync_aside", country.central.database, 2)
    await until("SELECT count(*) FROM sync_want", country.central.database, 0)
    assert await country.until_agreed(30)
    assert one(country.central.database, "SELECT count(*) FROM stock_line WHERE batch = 'damaged'") == 0
    assert [one(country.central.database, f"SELECT group_concat(quote(id)) FROM {table}") for table in tables] == whole


async def test_f05_a_push_with_a_wrong_base_is_held_at_both_ends_and_the_rest_flows_on(country: Country) -> None:
    site = await joined(country, "Badili", BADILI)
    write_stock(site.database, BADILI, 10)
    assert (await site.sync()).exit_code == 0
    with opened(site.database) as connection:
        connection.execute("UPDATE sync_record SET counter = counter + 7 WHERE id = 'stock-00003'")
        connection.execute("UPDATE stock_line SET batch = 'edited'")
    done = await site.sync()
    assert done.exit_code == 1
    assert [held["code"] for held in done.json["held_documents"]] == ["DIVERGED"]
    central = await country.central.status()
    assert [(held["id"], held["code"]) for held in central["held_documents"]] == [("stock-00003", "DIVERGED")]
    assert (await site.status())["held"] == 1
    assert not central["in_agreement"]
    assert one(country.central.database, "SELECT count(*) FROM stock_line WHERE batch = 'edited'") == 9
    write_stock(site.database, BADILI, 5, "after")
    await site.sync()
    assert one(country.central.database, "SELECT count(*) FROM stock_line") == 15


async def test_a_document_held_for_a_missing_referent_wakes_when_it_arrives(country: Country, tmp_path: Path) -> None:
    site = await joined(country, "Badili", BADILI)
    write_invoice(site.database, BADILI, "early", item="item-of-tomorrow")
    done = await site.sync()
    assert [held["code"] for held in done.json["held_documents"]] == ["MISSING_REFERENCE"]
    assert one(country.central.database, "SELECT count(*) FROM invoice") == 0
    new = tmp_path / "new.csv"
    new.write_text("id,name\nitem-of-tomorrow,Tomorrow 5 mg tablet\n")
    await country.import_file("item", new)
    await until("SELECT count(*) FROM invoice_line", country.central.database, 3)
    done = await site.sync()
    assert done.exit_code == 0, done.stdout
    assert done.json["held"] == 0


async def test_f04_a_held_document_that_was_superseded_does_not_come_back(country: Country, tmp_path: Path) -> None:
    site = await joined(country, "Badili", BADILI)
    with opened(site.database) as connection:
        connection.execute(
            "INSERT INTO stock_line (id, store_id, item_id, batch) VALUES ('s', ?, 'item-x', 'old')", (BADILI,)
        )
        connection.execute(
            "INSERT INTO stock_line (id, store_id, item_id, batch) VALUES ('gone', ?, 'item-x', 'old')", (BADILI,)
        )
    assert (await site.sync()).json["held"] == 2
    with opened(site.database) as connection:
        connection.execute("UPDATE stock_line SET batch = 'new', item_id = (SELECT min(id) FROM item) WHERE id = 's'")
        connection.execute("DELETE FROM stock_line WHERE id = 'gone'")
    assert (await site.sync()).exit_code == 0
    new = tmp_path / "new.csv"
    new.write_text("id,name\nitem-x,Late\n")
    await country.import_file("item", new)
    assert (await site.sync()).exit_code == 0
    assert one(country.central.database, "SELECT group_concat(id || batch) FROM stock_line") == "snew"
    assert one(country.central.database, "SELECT count(*) FROM sync_held") == 0


def traced_frames(trace: Path) -> list[tuple[str, int]]:
    """(word, number) of what matters in a site's trace, in order."""
    words = (line.split() for line in trace.read_text().splitlines())
    return [(word[1], int(word[2])) for word in words if word[1] in ("sent_hello", "frame_sent", "settled")]


async def test_after_a_sigkill_of_the_central_the_era_differs_and_no_committed_frame_is_asked_for_again(
    country: Country, tmp_path: Path
) -> None:
    site = await joined(country, "Badili", BADILI, LinkConditions(rate_bytes_per_second=60_000))
    trace = tmp_path / "trace"
    site.environment = site.environment | {"PACKHORSE_TRACE": str(trace)}
    era = one(country.central.database, "SELECT era FROM central_era ORDER BY number DESC")
    write_stock(site.database, BADILI, 12_000)
    await site.start()
    while (one(country.central.database, "SELECT frame_number FROM central_site WHERE site = 2") or 0) < 4:
        await asyncio.sleep(0.01)
    await country.central.kill()
    committed = one(country.central.database, "SELECT frame_number FROM central_site WHERE site = 2")
    before = len(traced_frames(trace))
    await country.central.start()
    await until("SELECT count(*) FROM stock_line", country.central.database, 12_000, 60)
    assert await country.until_agreed(30)
    assert one(country.central.database, "SELECT era FROM central_era ORDER BY number DESC") != era
    after = [number for word, number in traced_frames(trace)[before:] if word == "frame_sent"]
    assert after
    assert min(after) > committed, "a committed frame was sent again"
    assert max(Counter(number for word, number in traced_frames(trace) if word == "frame_sent").values()) <= 2


async def test_f01_a_site_that_is_killed_goes_on_with_the_bytes_it_had_cut(country: Country, tmp_path: Path) -> None:
    site = await joined(country, "Badili", BADILI, LinkConditions(rate_bytes_per_second=40_000))
    write_stock(site.database, BADILI, 8_000)
    await site.start()
    while (one(country.central.database, "SELECT frame_number FROM central_site WHERE site = 2") or 0) < 3:
        await asyncio.sleep(0.01)
    site.link.cut_all()
    await site.kill()
    cut = one(site.database, "SELECT group_concat(number || hex(hash)) FROM sync_frame")
    assert cut, "frames were on their way"
    with opened(site.database) as connection:
        connection.execute("UPDATE stock_line SET batch = 'after the kill' WHERE id = 'stock-00000'")
    site.link.change(LinkConditions())
    done = await site.sync()
    assert done.exit_code == 0, done.stdout
    assert done.json["resumed_frames"] > 0
    assert one(country.central.database, "SELECT count(*) FROM stock_line") == 8_000
    assert one(country.central.database, "SELECT batch FROM stock_line WHERE id = 'stock-00000'") == "after the kill"


async def test_f01_an_edit_between_send_and_acknowledgement_is_still_pending_after_it(country: Country) -> None:
    site = await joined(country, "Badili", BADILI)
    write_stock(site.database, BADILI, 1)
    await site.start()
    await until("SELECT count(*) FROM stock_line", country.central.database, 1)
    await until("SELECT count(*) FROM sync_outbox", site.database, 0)
    daemon = country.central._daemon
    assert daemon is not None
    os.kill(daemon.pid, signal.SIGSTOP)
    with opened(site.database) as connection:
        connection.execute("UPDATE stock_line SET batch = 'first'")
    await until("SELECT count(*) FROM sync_in_flight", site.database, 1)
    with opened(site.database) as connection:
        connection.execute("UPDATE stock_line SET batch = 'second'")
    pending = one(site.database, "SELECT token FROM sync_outbox")
    assert pending > one(site.database, "SELECT min(token) FROM sync_in_flight")
    os.kill(daemon.pid, signal.SIGCONT)
    await until("SELECT batch FROM stock_line", country.central.database, "second")
    await until("SELECT count(*) FROM sync_outbox", site.database, 0)


async def test_f13_a_copied_directory_is_refused_and_changes_nothing(country: Country) -> None:
    site = await joined(country, "Badili", BADILI)
    copy = SiteNode(site.number, site.directory.with_name("copy"), site.environment, site.link)
    shutil.copytree(site.directory, copy.directory)
    write_stock(copy.database, BADILI, 5, "copy")
    before = one(country.central.database, "SELECT hex(lineage) || frame_number FROM central_site")
    done = await copy.sync()
    assert done.exit_code == 1
    assert done.json["error"]["code"] == "COPIED"
    assert (await copy.status())["state"] == "lineage_broken"
    assert one(country.central.database, "SELECT hex(lineage) || frame_number FROM central_site") == before
    assert one(country.central.database, "SELECT count(*) FROM stock_line") == 0
    assert (await site.sync()).exit_code == 0, "the original goes on"


async def test_f13_a_restored_directory_is_refused_keeps_capturing_and_changes_nothing(country: Country) -> None:
    site = await joined(country, "Badili", BADILI)
    backup = site.directory.with_name("backup")
    shutil.copytree(site.directory, backup)
    write_stock(site.database, BADILI, 5)
    assert (await site.sync()).exit_code == 0
    shutil.rmtree(site.directory)
    shutil.copytree(backup, site.directory)
    done = await site.sync()
    assert done.exit_code == 1
    assert done.json["error"]["code"] == "LINEAGE_BROKEN"
    write_stock(site.database, BADILI, 2, "restored")
    status = await site.status()
    assert (status["state"], status["waiting_to_push"]) == ("lineage_broken", 2)
    assert one(country.central.database, "SELECT count(*) FROM stock_line") == 5
    assert (await country.central.status())["sites"][0]["state"] == "lineage_broken"


async def test_f11_a_site_refuses_a_restored_central(country: Country) -> None:
    site = await joined(country, "Badili", BADILI)
    await country.central.stop()
    backup = country.central.directory.with_name("central-backup")
    shutil.copytree(country.central.directory, backup)
    await country.central.start()
    write_stock(site.database, BADILI, 5)
    assert (await site.sync()).exit_code == 0
    await country.central.stop()
    shutil.rmtree(country.central.directory)
    shutil.copytree(backup, country.central.directory)
    await country.central.start()
    done = await site.sync()
    assert done.exit_code == 1
    assert done.json["error"]["code"] in ("LINEAGE_BROKEN", "CENTRAL_RESTORED")
    assert one(site.database, "SELECT count(*) FROM stock_line") == 5
    assert (await site.status())["state"] == "lineage_broken"


async def test_f13_a_site_whose_install_secret_is_gone_works_on_locally(country: Country) -> None:
    site = await joined(country, "Badili", BADILI)
    shutil.rmtree(country.folder / "state")
    write_stock(site.database, BADILI, 2)
    done = await site.sync()
    assert done.exit_code == 1
    assert done.json["error"]["code"] == "LINEAGE_BROKEN"
    assert (await site.status())["waiting_to_push"] == 2
