"""The tables that only a central node has."""

CENTRAL_TABLES = (
    # One row per enrolled or expected site: credential, lineage, chain, and what it said of itself.
    """CREATE TABLE IF NOT EXISTS central_site (
    site INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    token_hash BLOB NOT NULL, token_expires INTEGER NOT NULL, installation TEXT NOT NULL DEFAULT '',
    credential_hash BLOB NOT NULL DEFAULT x'', epoch BLOB NOT NULL DEFAULT x'', enrolled_at INTEGER NOT NULL DEFAULT 0,
    session TEXT NOT NULL DEFAULT '', lineage BLOB NOT NULL DEFAULT x'',
    frame_number INTEGER NOT NULL DEFAULT 0, frame_hash BLOB NOT NULL DEFAULT x'',
    last_seen INTEGER, silent_days INTEGER NOT NULL DEFAULT 0, seen_before INTEGER,
    last_success INTEGER, agreed INTEGER, differing TEXT NOT NULL DEFAULT '',
    waiting_to_push INTEGER, held_there INTEGER, clock_difference_milliseconds INTEGER,
    software_version TEXT NOT NULL DEFAULT '', tables TEXT NOT NULL DEFAULT '',
    last_error_code TEXT NOT NULL DEFAULT '', last_error TEXT NOT NULL DEFAULT '')""",
    # SHA-256 of lineage tokens that were offered since the site last proved to have one (central_site.lineage).
    """CREATE TABLE IF NOT EXISTS central_offered (
    site INTEGER NOT NULL, number INTEGER NOT NULL, token_hash BLOB NOT NULL,
    PRIMARY KEY (site, number)) WITHOUT ROWID""",
    # SHA-256 of lineage tokens that a site had before: whoever shows one is a restored or copied database.
    """CREATE TABLE IF NOT EXISTS central_lineage (
    site INTEGER NOT NULL, token_hash BLOB NOT NULL, PRIMARY KEY (site, token_hash)) WITHOUT ROWID""",
    # What each site follows and the last position that it acknowledged, as far as was noted; `begun`: where the feed
    # stood when the subscription began.
    """CREATE TABLE IF NOT EXISTS central_subscription (
    site INTEGER NOT NULL, scope TEXT NOT NULL, generation INTEGER NOT NULL, position INTEGER NOT NULL DEFAULT 0,
    begun INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (site, scope)) WITHOUT ROWID""",
    # What a site lacks of tables that it did not know when its subscription passed them (backfills.py).
    """CREATE TABLE IF NOT EXISTS central_backfill (
    site INTEGER NOT NULL, scope TEXT NOT NULL, table_name TEXT NOT NULL, generation INTEGER NOT NULL,
    position INTEGER NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (site, scope, table_name)) WITHOUT ROWID""",
    # Acknowledgements of applied frames, kept until the site's next Hello confirms them.
    """CREATE TABLE IF NOT EXISTS central_note (
    site INTEGER NOT NULL, number INTEGER NOT NULL, hash BLOB NOT NULL, acknowledgement BLOB NOT NULL,
    PRIMARY KEY (site, number)) WITHOUT ROWID""",
    # Frames that are being taken; a row of an earlier run is an attempt that the process did not survive.
    """CREATE TABLE IF NOT EXISTS central_attempt (
    site INTEGER NOT NULL, number INTEGER NOT NULL, hash BLOB NOT NULL, era INTEGER NOT NULL,
    failures INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (site, number)) WITHOUT ROWID""",
    # The runs of this central, and where each feed that had moved in a run stood when it ended.
    """CREATE TABLE IF NOT EXISTS central_era (number INTEGER PRIMARY KEY, era INTEGER NOT NULL UNIQUE)""",
    """CREATE TABLE IF NOT EXISTS central_era_end (
    scope TEXT NOT NULL, number INTEGER NOT NULL, position INTEGER NOT NULL,
    PRIMARY KEY (scope, number)) WITHOUT ROWID""",
)
