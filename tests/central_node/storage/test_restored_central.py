"""A central node that was restored from a backup is found out by what the sites have, and refused (F10, F11)."""

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.errors import Code, PackhorseError
from engine.rules.topology import CopyType
from engine.storage.positions import read_positions
from engine.storage.records import applying
from tests.engine.storage.central_end import Session
from tests.engine.storage.exchange import SITES, Exchange, exchange
from tests.engine.storage.site_end import SiteEnd

OWN_FACTS = ("lineage_token",)
"""What a site may have stored before it is refused: the token of the Welcome that asked for its positions."""


def kept_at(site: SiteEnd) -> list[str]:
    """Everything that a refusal must leave alone at a site."""
    return [line for line in site.dump() if not any(f"'{fact}'" in line for fact in OWN_FACTS)]


def kept_at_central(country: Exchange) -> list[object]:
    """Everything that a refusal must leave alone at the central."""
    tables = ("sync_record", "sync_membership", "sync_held", "sync_scope", "sync_digest", "central_subscription")
    every = [list(country.central.connection.execute(f"SELECT * FROM {table}")) for table in tables]
    return [country.central.rows(), *every]


def is_refused(country: Exchange, site: SiteEnd) -> bool:
    """Whether a site that dials is refused; then nothing was changed at either end."""
    before = kept_at(site), kept_at_central(country)
    try:
        country.connect(site)
    except PackhorseError as error:
        assert error.code in (Code.CENTRAL_RESTORED, Code.LINEAGE_BROKEN), error.code
        assert (kept_at(site), kept_at_central(country)) == before
        return True
    return False


class Story:
    """Live sessions of two sites, a backup among them."""

    def __init__(self, country: Exchange) -> None:
        self.country, self.central = country, country.central
        self.sessions: dict[int, Session] = {}
        self.number = 0
        self.backup: Path | None = None
        self.knows_more: set[int] = set()
        """The sites that have something which the backup lacks."""
        for number in SITES:
            self.connect(number)
        self.back_up()

    def back_up(self) -> None:
        """Takes the backup that is put back later; what the sites have is in it."""
        self.number += 1
        self.backup = self.central.backup(f"backup-{self.number}")
        self.knows_more.clear()

    def restore(self) -> None:
        """Puts the backup back, and starts the central."""
        assert self.backup is not None
        self.central.restore(self.backup)

    def connect(self, number: int) -> None:
        """A new session. Its token is in no earlier backup."""
        self.sessions[number] = self.country.connect(self.country.sites[number])
        self.knows_more.add(number)

    def restart(self, _: int) -> None:
        """The central starts again, and both sites dial."""
        self.central.restart()
        for number in SITES:
            self.connect(number)

    def central_data(self, _: int) -> None:
        """The feed of every site moves."""
        self.number += 1
        self.central.edit(f"INSERT INTO unit (id, name) VALUES ('unit-{self.number}', 'x')")

    def configuration(self, number: int) -> None:
        """The feed of one site's configuration moves."""
        self.number += 1
        self.central.administer(f"UPDATE site SET name = 'name {self.number}' WHERE id = '{number}'")

    def pull(self, number: int) -> None:
        """A site applies all that is there."""
        site = self.country.sites[number]
        before = site.read(read_positions)
        self.country.pull(site, self.sessions[number])
        if site.read(read_positions) != before:
            self.knows_more.add(number)

    def push(self, number: int) -> None:
        """A site sends an edit and has it acknowledged."""
        self.number += 1
        site = self.country.sites[number]
        site.edit(f"INSERT INTO location (id, store_id) VALUES ('at-{self.number}', 'store-{number}')")
        self.country.push(site, self.sessions[number])
        self.knows_more.add(number)


ACTIONS = ("central_data", "configuration", "pull", "push", "restart")
AFTER = ("central_data", "configuration", "restart")
STEP = st.tuples(st.sampled_from(ACTIONS), st.sampled_from(SITES))


@settings(deadline=None, max_examples=40)
@given(
    before=st.lists(STEP, max_size=6),
    lost=st.lists(STEP, max_size=6),
    after=st.lists(st.tuples(st.sampled_from(AFTER), st.sampled_from(SITES)), max_size=6),
)
@example(before=[], lost=[("configuration", 2), ("pull", 2)], after=[])
@example(before=[], lost=[("central_data", 2), ("central_data", 2), ("pull", 2)], after=[("central_data", 2)])
def test_f10_exactly_the_sites_that_know_more_than_the_backup_refuse_it(
    before: list[tuple[str, int]], lost: list[tuple[str, int]], after: list[tuple[str, int]]
) -> None:
    """Whatever the restored central does before a site dials, its numbers never pass for those that were lost."""
    with exchange() as country:
        story = Story(country)
        for name, number in before:
            getattr(story, name)(number)
        for number in SITES:
            country.pull(country.sites[number], story.sessions[number])
            country.push(country.sites[number], story.sessions[number])
        story.back_up()
        for name, number in lost:
            getattr(story, name)(number)
        story.restore()
        for name, number in after:
            if name == "restart":
                country.central.restart()
            else:
                getattr(story, name)(number)
        for number, site in country.sites.items():
            refused = is_refused(country, site)
            assert refused is (number in story.knows_more), f"site {number}"
            if not refused:
                assert country.differing(site, country.synchronise(site)) == []


@pytest.mark.parametrize("feed", ["central_data", "configuration"])
@pytest.mark.parametrize(("lost", "new"), [(5, 0), (5, 3), (5, 5), (5, 9), (1, 9)])
def test_f10_positions_of_a_lost_run_never_pass_for_those_of_the_next(feed: str, lost: int, new: int) -> None:
    """The backup ends at 500; the site is at 505; the restored central has given 501 to 510 to others."""
    with exchange() as country:
        story = Story(country)
        story.central_data(2)
        for number in SITES:
            story.pull(number)
        story.back_up()
        for _ in range(lost):
            getattr(story, feed)(2)
        story.pull(2)
        story.restore()
        for _ in range(new):
            getattr(story, feed)(2)
        assert is_refused(country, country.sites[2])
        assert not is_refused(country, country.sites[3]), "the site that saw nothing of it goes on"
        assert is_refused(country, country.sites[2]), "it stays refused"


@pytest.mark.parametrize("starts", [1, 2, 9])
def test_f10_a_site_that_was_away_for_many_runs_goes_on(starts: int) -> None:
    with exchange() as country:
        story = Story(country)
        for _ in range(starts):
            story.central_data(2)
            country.central.restart()
        session = country.synchronise(country.site)
        assert country.differing(country.site, session) == []


def test_f10_an_era_that_never_was_is_a_lost_run() -> None:
    with exchange() as country:
        country.site.edit("UPDATE sync_meta SET value = '77' WHERE key = 'era'")
        assert is_refused(country, country.site)


# --- what a site has sent ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [1, 3])
@pytest.mark.parametrize("deleted", [False, True])
def test_f11_a_restored_central_that_lost_frames_is_refused(lost: int, deleted: bool) -> None:
    """Frames were acknowledged, changes forgotten, documents deleted: the site has nothing to send again."""
    with exchange() as country:
        story, site = Story(country), country.site
        story.push(2)
        story.back_up()
        for _ in range(lost):
            story.push(2)
        if deleted:
            site.edit("DELETE FROM location")
            country.push(site, story.sessions[2])
        story.restore()
        assert is_refused(country, site)
        assert country.central.one("SELECT count(*) FROM location") == 1, "absence deletes nothing"


def test_f11_a_site_keeps_which_frame_carried_each_record_last() -> None:
    """Tombstones included: whoever reconciles can tell what came after any frame."""
    with exchange() as country:
        session, site = country.connect(country.site), country.site
        last: dict[str, int] = {}
        history = [("a", "b"), ("b", "c"), ("a",), ("-b",), ("d", "-c")]
        for frame, names in enumerate(history, 1):
            for name in names:
                record = name.removeprefix("-")
                put = f"INSERT INTO location (id, store_id) VALUES ('{record}', 'store-2')"
                edit = f"{put} ON CONFLICT (id) DO UPDATE SET name = name || '.'"
                site.edit(f"DELETE FROM location WHERE id = '{record}'" if name != record else edit)
                last[record] = frame
            country.push(site, session)
        for frame in range(len(history) + 1):
            query = "SELECT id FROM sync_record WHERE table_name = 'location' AND acked_frame > ?"
            after = {row[0] for row in site.connection.execute(query, (frame,))}
            assert after == {record for record, number in last.items() if number > frame}


@pytest.mark.parametrize("kind", [CopyType.ACTIVE, CopyType.COLLECTOR])
def test_f11_a_row_that_is_missing_at_the_central_is_no_delete(kind: CopyType) -> None:
    """Damage at the central is never sent as a tombstone, to whoever follows the store."""
    with exchange() as country:
        site, central = country.site, country.central
        if kind is CopyType.COLLECTOR:
            central.put_copy("store-1", 2, CopyType.COLLECTOR)
        store = "store-1" if kind is CopyType.COLLECTOR else "store-2"
        put = f"INSERT INTO location (id, store_id) VALUES ('x', '{store}')"
        (central if kind is CopyType.COLLECTOR else site).edit(put)
        session = country.synchronise(site)
        assert site.one("SELECT count(*) FROM location WHERE id = 'x'") == 1
        with applying(central.connection):
            central.connection.execute("DELETE FROM location")
        for scope, cursor in session.cursors.items():
            session.cursors[scope] = cursor._replace(position=0)
        body = central.page(session)
        assert body is not None
        sent = [record for section in body.sections for document in section.documents for record in document.records]
        assert not any(record.deleted for record in sent)
