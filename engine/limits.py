"""Every bound in one place. Sizes in bytes, times as the name says.

A bound that both ends must keep to travels in `Limits` of the handshake; the others are each node's own.
"""

# --- frames -----------------------------------------------------------------------------------------------------------
FRAME_RECORDS = 500
"""Most records in a frame, unless one document alone has more."""
FRAME_RECORDS_LEAST = 8
"""Where the size of frames stops shrinking on a bad link."""
FRAME_BYTES = 256 * 1024
"""Aim for the body of a frame before compression; a frame is closed at the first document that passes it."""
PART_BYTES_LEAST = 1024
"""Where the size of the parts of a large document stops shrinking on a bad link."""
FRAME_BYTES_MAX = 32 * 1024 * 1024
"""Largest body of a frame after decompression that is accepted; larger is refused, whatever it claims."""
PAGE_BYTES_MAX = 4 * 1024 * 1024
"""Largest body of a frame of several documents that the central makes, before compression."""
DOCUMENT_BYTES_MAX = 16 * 1024 * 1024
"""Largest document, before compression, that a node sends; a larger one stays there, set aside with that reason."""
MESSAGE_BYTES_MAX = 40 * 1024 * 1024
"""Largest gRPC message."""
WINDOW_FRAMES = 8
"""Frames that may be under way without an acknowledgement, in each direction."""
WINDOW_FRAMES_FIRST = 2
"""The same of a site when its session begins; each acknowledgement lets it grow by one."""

# --- records ----------------------------------------------------------------------------------------------------------
ID_BYTES_MAX = 200
"""Longest id of a record."""
HELD_DOCUMENTS_PER_SITE = 10_000
"""Documents of one site that the central keeps held; more are deferred to the site."""
HELD_BYTES_PER_SITE = 64 * 1024 * 1024
"""Bytes of the documents of one site that the central keeps held; what has no room is deferred to the site."""
DIFFERING_SCOPES = 20
"""Most scopes named in a report on a checkpoint."""
WANT_DOCUMENTS = 500
"""Most documents asked for in one message."""
TOMBSTONE_DAYS = 400
"""How long a deleted record is remembered; longer than the longest backup kept."""
PURGE_RECORDS = 500
"""Deleted records that are looked at in one transaction of a purge."""
LINEAGE_TOKENS = 32
"""Lineage tokens that were offered to a site and that it may show; the Welcomes of older ones are lost."""

# --- waiting ----------------------------------------------------------------------------------------------------------
PATIENCE_SECONDS = 120
"""How long a side waits for an expected message before it gives the session up."""
CONNECT_SECONDS = 20
"""How long a site tries to reach the central in one attempt."""
RETRY_SECONDS_FIRST = 0.5
"""Start of the exponential wait between sessions that moved nothing."""
RETRY_SECONDS_MAX = 60.0
"""End of that exponential wait."""
BUSY_SECONDS = 1.0, 900.0
"""Bounds of a retry-after."""
PAGE_WAIT_SECONDS = 0.25
"""How long a page of a feed waits at most while frames wait at the central to be taken."""
WRITE_LOCK_SECONDS = 5.0
"""How long a transaction waits for another program's write lock."""
DRAIN_SECONDS = 10.0
"""How long a daemon that was asked to stop waits for its sessions."""
ROUNDS = 5
"""Rounds of push and pull in one manual or scheduled synchronisation."""

# --- noticing edits of other programs ---------------------------------------------------------------------------------
WATCH_SECONDS_BUSY = 0.0005
"""Time between two looks at `PRAGMA data_version` while edits keep coming."""
WATCH_SECONDS_IDLE = 0.2
"""The same after a quiet while."""
ASIDE_SECONDS = 0.002
"""How long what nobody waits for is put off, so that it does not slow down what somebody waits for."""
WATCH_GROWTH = 1.005
"""By how much that time grows with each look that finds nothing: to a hundredth of how long it has been quiet."""

# --- counting and keeping ---------------------------------------------------------------------------------------------
COUNT_CAP = 10_000
"""Counts in `status` stop here and say that they are capped."""
ROUTE_RECORDS = 1_000
"""Records of the central's own outbox that are routed in one transaction."""
INGEST_FRAMES = 16
"""Frames, of any sites, that are applied in one transaction."""
INGEST_ATTEMPTS = 3
"""Attempts to take a frame, each of which ended the process or failed, before it is set aside whole."""
APPLY_SECONDS = 0.05
"""After which time a transaction that applies takes nothing more on; other programs wait for it."""
CHECKPOINT_PAGES = 500
"""Size of the write-ahead log, in pages, from which the daemon checkpoints it."""
LOG_BYTES_KEPT = 8 << 20
"""To which size the file of the log is cut when it begins again after a larger transaction."""
POSITIONS_PER_PAGE = 5_000
"""Feed positions in one message."""
SWEEP_HOURS = 24
"""How often the rows are compared with what was acknowledged, besides each start."""
SWEEP_PAUSE_SECONDS = 0.1
"""Time between two steps of that comparison where other work goes on beside it."""
CLOCK_WARNING_SECONDS = 3_600
"""From this difference between two clocks on, a person is told."""
TOKEN_DAYS = 7
"""How long an enrolment token can be used."""
CONFIGURATION_BYTES_MAX = 16 * 1024
"""Largest node.toml: reading TOML takes time with the square of a strange file's size."""
