"""The closed catalogue of errors, and the exceptions that carry them.

    PackhorseError              has a code of the catalogue; its text is the plain sentence a person reads
    ├── Refused                 bad input or a broken rule: nothing was changed, repeating it will not help
    ├── PeerProblem             the other node refused, or broke the protocol
    └── Unavailable             the link, the disk or another program is in the way: trying again later may help

A sentence says what happened, to which record, who must act and what to do next. The text of any other exception is
logged here and never sent to a peer.
"""

from dataclasses import dataclass
from enum import StrEnum


class Actor(StrEnum):
    """Who must act."""

    SITE = "site"
    CENTRAL = "central"
    NOBODY = "nobody"


class Code(StrEnum):
    """Every code that a user, a log or a peer can see."""

    # A document was held.
    NO_AUTHORITY = "NO_AUTHORITY"
    STALE_TERM = "STALE_TERM"
    DIVERGED = "DIVERGED"
    MISSING_REFERENCE = "MISSING_REFERENCE"
    UNREADABLE = "UNREADABLE"
    NOT_COLLECTED = "NOT_COLLECTED"
    UNCAPTURED = "UNCAPTURED"
    LEFT_BEHIND = "LEFT_BEHIND"
    # A session ended.
    LINEAGE_BROKEN = "LINEAGE_BROKEN"
    COPIED = "COPIED"
    CENTRAL_RESTORED = "CENTRAL_RESTORED"
    CREDENTIAL_UNKNOWN = "CREDENTIAL_UNKNOWN"
    PROTOCOL_TOO_OLD = "PROTOCOL_TOO_OLD"
    PROTOCOL_BROKEN = "PROTOCOL_BROKEN"
    FRAME_DAMAGED = "FRAME_DAMAGED"
    CHAIN_BROKEN = "CHAIN_BROKEN"
    SUPERSEDED = "SUPERSEDED"
    DRAINING = "DRAINING"
    BUSY = "BUSY"
    PEER_SILENT = "PEER_SILENT"
    UNREACHABLE = "UNREACHABLE"
    LINK_CUT = "LINK_CUT"
    INTERNAL = "INTERNAL"
    # Enrolment.
    TOKEN_UNREADABLE = "TOKEN_UNREADABLE"  # noqa: S105 - a code, not a secret
    TOKEN_UNKNOWN = "TOKEN_UNKNOWN"  # noqa: S105 - a code, not a secret
    TOKEN_USED = "TOKEN_USED"  # noqa: S105 - a code, not a secret
    TOKEN_EXPIRED = "TOKEN_EXPIRED"  # noqa: S105 - a code, not a secret
    CERTIFICATE_WRONG = "CERTIFICATE_WRONG"
    CERTIFICATE_UNUSABLE = "CERTIFICATE_UNUSABLE"
    # A command was refused.
    DIRECTORY_WRONG = "DIRECTORY_WRONG"
    DIRECTORY_TAKEN = "DIRECTORY_TAKEN"
    DIRECTORY_IN_USE = "DIRECTORY_IN_USE"
    DIRECTORY_READ_ONLY = "DIRECTORY_READ_ONLY"
    DATABASE_NEWER = "DATABASE_NEWER"
    DATABASE_DAMAGED = "DATABASE_DAMAGED"
    DISK_FULL = "DISK_FULL"
    PORT_IN_USE = "PORT_IN_USE"
    ADDRESS_WRONG = "ADDRESS_WRONG"
    CONFIGURATION_WRONG = "CONFIGURATION_WRONG"
    COMMAND_WRONG = "COMMAND_WRONG"
    CSV_WRONG = "CSV_WRONG"
    EDIT_REFUSED = "EDIT_REFUSED"
    STORE_UNKNOWN = "STORE_UNKNOWN"
    STORE_HAS_RECORDS = "STORE_HAS_RECORDS"
    STORE_ACTIVE_THERE = "STORE_ACTIVE_THERE"
    COPY_REQUIRED = "COPY_REQUIRED"
    NOT_VISIBLE = "NOT_VISIBLE"
    RECORD_UNKNOWN = "RECORD_UNKNOWN"
    STORE_NOT_ACTIVE = "STORE_NOT_ACTIVE"
    ID_TAKEN = "ID_TAKEN"
    TABLE_WRONG = "TABLE_WRONG"
    SITE_UNKNOWN = "SITE_UNKNOWN"
    NAME_TAKEN = "NAME_TAKEN"
    NAME_WRONG = "NAME_WRONG"


@dataclass(frozen=True, slots=True)
class Advice:
    """What the catalogue says of a code."""

    who_acts: Actor
    retry: bool
    next_step: str


CATALOGUE: dict[Code, Advice] = {
    Code.NO_AUTHORITY: Advice(Actor.SITE, False, "Undo the edit at the site, or ask for the store to be assigned."),
    Code.STALE_TERM: Advice(Actor.CENTRAL, False, "Compare the two versions and enter what is missing where it lives."),
    Code.DIVERGED: Advice(Actor.CENTRAL, False, "Compare the two versions; until then the stored one stays."),
    Code.MISSING_REFERENCE: Advice(Actor.NOBODY, True, "It is applied by itself when the other record arrives."),
    Code.UNREADABLE: Advice(Actor.CENTRAL, False, "Upgrade this node, or report the record."),
    Code.NOT_COLLECTED: Advice(
        Actor.CENTRAL, False, "Make the central's copy of the store a collector, or include its transactions."
    ),
    Code.UNCAPTURED: Advice(
        Actor.NOBODY, True, "Find out which program did it; records of other nodes come back by themselves."
    ),
    Code.LEFT_BEHIND: Advice(
        Actor.CENTRAL, False, "It stays, hidden, until it is pushed and taken, or the site has discarded it."
    ),
    Code.LINEAGE_BROKEN: Advice(
        Actor.SITE, False, "Stop every copy of this site but one; the site works on locally, its edits stay captured."
    ),
    Code.COPIED: Advice(Actor.SITE, False, "Use the original directory, or join as a new site."),
    Code.CENTRAL_RESTORED: Advice(Actor.CENTRAL, False, "Nothing was changed; keep both databases as they are."),
    Code.CREDENTIAL_UNKNOWN: Advice(Actor.CENTRAL, False, "Check that the site still belongs to this central node."),
    Code.PROTOCOL_TOO_OLD: Advice(Actor.SITE, False, "Upgrade the older of the two programs."),
    Code.PROTOCOL_BROKEN: Advice(Actor.NOBODY, True, "The session starts again; report it when it repeats."),
    Code.FRAME_DAMAGED: Advice(Actor.NOBODY, True, "It is sent again by itself."),
    Code.CHAIN_BROKEN: Advice(Actor.SITE, False, "Keep the database as it is and report it."),
    Code.SUPERSEDED: Advice(Actor.NOBODY, True, "A newer session of the same site took over."),
    Code.DRAINING: Advice(Actor.NOBODY, True, "The central node is going down; the site tries again by itself."),
    Code.BUSY: Advice(Actor.NOBODY, True, "It is tried again by itself."),
    Code.PEER_SILENT: Advice(Actor.NOBODY, True, "The site tries again by itself."),
    Code.UNREACHABLE: Advice(
        Actor.SITE, True, "Check the link and the address; a site that serves tries again by itself."
    ),
    Code.LINK_CUT: Advice(Actor.NOBODY, True, "The site tries again by itself."),
    Code.INTERNAL: Advice(Actor.CENTRAL, True, "Look for the incident number in the log of the node that reported it."),
    Code.TOKEN_UNREADABLE: Advice(Actor.SITE, False, "Copy the whole token, or ask for a new one."),
    Code.TOKEN_UNKNOWN: Advice(Actor.CENTRAL, False, "Make a new token with `central-node site add`."),
    Code.TOKEN_USED: Advice(Actor.CENTRAL, False, "Make a new token with `central-node site add`."),
    Code.TOKEN_EXPIRED: Advice(Actor.CENTRAL, False, "Make a new token with `central-node site add`."),
    Code.CERTIFICATE_WRONG: Advice(Actor.SITE, False, "Use the token or the CA file of the central node you dial."),
    Code.CERTIFICATE_UNUSABLE: Advice(
        Actor.CENTRAL, False, "Put the certificate and its key there again, as PEM; no site can connect without them."
    ),
    Code.DIRECTORY_WRONG: Advice(Actor.SITE, False, "Name a directory made by `init` or `join`."),
    Code.DIRECTORY_TAKEN: Advice(Actor.SITE, False, "Name a directory that does not exist yet."),
    Code.DIRECTORY_IN_USE: Advice(Actor.SITE, False, "Stop the daemon that owns the directory first."),
    Code.DIRECTORY_READ_ONLY: Advice(Actor.SITE, False, "Give the user that runs the node the right to write there."),
    Code.DATABASE_NEWER: Advice(Actor.SITE, False, "Upgrade the program; an older one never touches a newer database."),
    Code.DATABASE_DAMAGED: Advice(Actor.SITE, False, "Keep what is there as it is and restore a backup."),
    Code.DISK_FULL: Advice(Actor.SITE, True, "Free some space; nothing that was committed is lost."),
    Code.PORT_IN_USE: Advice(Actor.CENTRAL, False, "Stop the other program or choose another port."),
    Code.ADDRESS_WRONG: Advice(Actor.SITE, False, "Write it as HOST:PORT."),
    Code.CONFIGURATION_WRONG: Advice(Actor.SITE, False, "Correct node.toml, or the variable in the environment."),
    Code.COMMAND_WRONG: Advice(Actor.SITE, False, "Use the commands of the program version that runs as the daemon."),
    Code.CSV_WRONG: Advice(Actor.SITE, False, "Correct the file and import it again; nothing of it was imported."),
    Code.EDIT_REFUSED: Advice(Actor.SITE, False, "Make the edit where the rule allows it."),
    Code.STORE_UNKNOWN: Advice(Actor.CENTRAL, False, "Import the store first."),
    Code.STORE_HAS_RECORDS: Advice(Actor.CENTRAL, False, "Stores with records are moved, not assigned."),
    Code.STORE_ACTIVE_THERE: Advice(Actor.CENTRAL, False, "See `central-node store show`."),
    Code.COPY_REQUIRED: Advice(Actor.CENTRAL, False, "See `central-node store show` for the copies of the store."),
    Code.NOT_VISIBLE: Advice(Actor.CENTRAL, False, "Make it visible first with `central-node visibility add`."),
    Code.RECORD_UNKNOWN: Advice(Actor.CENTRAL, False, "Check the id, or import the record first."),
    Code.STORE_NOT_ACTIVE: Advice(Actor.CENTRAL, False, "Assign it to a site first with `central-node store assign`."),
    Code.ID_TAKEN: Advice(Actor.CENTRAL, False, "Choose another id, or leave it out and let one be made."),
    Code.TABLE_WRONG: Advice(Actor.CENTRAL, False, "Name one of these tables."),
    Code.SITE_UNKNOWN: Advice(Actor.CENTRAL, False, "See `central-node site list`."),
    Code.NAME_TAKEN: Advice(Actor.CENTRAL, False, "Choose another name."),
    Code.NAME_WRONG: Advice(Actor.CENTRAL, False, "Choose a name of 1 to 200 printable characters."),
}


class PackhorseError(Exception):
    """An error of the catalogue.

    Args:
        code: which one.
        what: one sentence that says what happened and to what, without the next step.
        retry_after_seconds: when trying again may help at the earliest; None leaves it to the caller.
    """

    def __init__(self, code: Code, what: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.retry_after_seconds = retry_after_seconds

    @property
    def advice(self) -> Advice:
        """What the catalogue says of the code."""
        return CATALOGUE[self.code]

    @property
    def sentence(self) -> str:
        """What happened and what to do next, for a person."""
        return sentence(self.code, self.what)


class Refused(PackhorseError):
    """Bad input or a broken rule. Nothing was changed, and repeating it will not help."""


class PeerProblem(PackhorseError):
    """The other node refused, or broke the protocol."""


class Unavailable(PackhorseError):
    """The link, the disk or another program is in the way. Trying again later may help."""


def sentence(code: Code, what: str) -> str:
    """Joins what happened with the catalogue's next step."""
    return f"{what.rstrip()} {CATALOGUE[code].next_step}"
