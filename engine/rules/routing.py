"""Which scopes a document is in, and which scopes a site follows. Two tables, to be read beside the specification.

| scope          | what is in it                                       | followed by                                 |
|----------------|-----------------------------------------------------|---------------------------------------------|
| site/N         | the site, its copies of stores, the central's       | site N                                      |
|                | copies of the stores that are active at N           |                                             |
| central        | records of kind central                             | every site                                  |
| store-record/S | the store record of S                               | sites where the copy of S is not none       |
| store/S        | documents of kind store of S                        | sites with an active or collector copy of S |

Members always have the scopes of their root. The central holds everything and follows nothing.
"""

from engine.catalogue.model import Kind, Row, Table
from engine.rules.topology import CENTRAL_SITE, CopyType, Topology

CENTRAL_SCOPE = "central"
FULL_COPIES = frozenset((CopyType.ACTIVE, CopyType.COLLECTOR))


def site_scope(site: int) -> str:
    """The scope of a site's own configuration."""
    return f"site/{site}"


def scopes_of(root: Table, row: Row, topology: Topology) -> tuple[str, ...]:
    """The scopes of the document whose root record is `row`. Never empty."""
    match root.kind:
        case Kind.CENTRAL:
            return (CENTRAL_SCOPE,)
        case Kind.CENTRAL_STORE:
            store = root.value(row, root.store_column)
            return (f"store-record/{store}",) if root.is_store_record else (f"store-config/{store}",)
        case Kind.STORE:
            return (f"store/{root.value(row, root.store_column)}",)
        case Kind.SYNC:
            return _scopes_of_configuration(root, row, topology)


def _scopes_of_configuration(root: Table, row: Row, topology: Topology) -> tuple[str, ...]:
    if "site" not in root.index:
        return (site_scope(int(str(row[0]))),)
    site = int(str(root.value(row, "site")))
    active = topology.active_copies.get(str(root.value(row, "store_id")))
    if site == CENTRAL_SITE and active is not None and active.site != CENTRAL_SITE:
        return (site_scope(CENTRAL_SITE), site_scope(active.site))
    return (site_scope(site),)


def subscriptions_of(site: int, topology: Topology) -> tuple[str, ...]:
    """The scopes that a site follows, the essential first: configuration, central data, store records, store data."""
    if site == CENTRAL_SITE or site not in topology.sites:
        return ()
    copies = topology.copies_at(site)
    return (
        site_scope(site),
        CENTRAL_SCOPE,
        *(f"store-record/{copy.store_id}" for copy in copies if copy.type is not CopyType.NONE),
        *(f"store/{copy.store_id}" for copy in copies if copy.type in FULL_COPIES),
    )
