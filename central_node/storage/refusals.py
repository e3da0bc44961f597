"""Why a site may not have written a document: found once for each table, store and term."""

from engine.catalogue.model import Row, Table
from engine.errors import Code
from engine.rules.authority import is_collected, may_edit, owner_of
from engine.rules.topology import Topology
from engine.rules.versions import Term, Version

Refusal = tuple[Code, str]
"""A code and what the sentence says of the document."""


class Refusals:
    """The verdicts on one site's documents under one topology."""

    def __init__(self, site: int, topology: Topology) -> None:
        self._site, self._topology = site, topology
        self._known: dict[tuple[object, ...], Refusal | None] = {}

    def of(self, root: Table, row: Row, version: Version, is_new: bool) -> Refusal | None:
        """Why the site may not have written, in that version, a document with this root record; None: it may.

        Args:
            root: the table.
            row: the root record.
            version: of the document; its term is proved.
            is_new: the document is not stored yet.
        """
        store = row[root.index[root.store_column]] if root.store_column else ""
        case = (root.name, store, version.term, version.term_id, is_new)
        if case not in self._known:
            self._known[case] = self._find(root, row, Term(version.term, version.term_id), is_new)
        return self._known[case]

    def _find(self, root: Table, row: Row, term: Term, is_new: bool) -> Refusal | None:
        owner = owner_of(root, row)
        verdict = may_edit(self._site, root, owner, term, self._topology, is_new)
        if verdict is not None:
            return verdict.code, f"was not applied. {verdict.says}"
        if not is_collected(root, owner, self._topology):
            return Code.NOT_COLLECTED, "belongs to a store whose data this central node does not collect."
        return None
