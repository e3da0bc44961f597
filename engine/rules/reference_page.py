"""`docs/catalogue.md`: every table with its kind, columns, references, who edits it and who receives it."""

from collections.abc import Iterator, Mapping

from engine.catalogue.model import Catalogue, Column, ColumnType, Table
from engine.rules.authority import rule_of
from engine.rules.matrix import matrix, matrix_table

_HEAD = """# The catalogue

Made by `make documents` from `protos/packhorse/records/v1`. Every table of a node's database that holds records is
here; what a column means stands beside it in the contract.

## Who edits, who receives

For each relation of a site to a record: whether it *edits* it (and so has it), *receives* it, or neither (-). The
central as such is the one that is not the primary too. *home*: the home store of a patient or prescriber is active
there; *visible*: a store in which the patient is visible is; *dispensary*: a dispensary store is. The members of a
document go where its root goes. Transactions of a dispensary store that leaves them out go nowhere
(`store include-transactions`): the tables are marked.
"""


def catalogue_page(catalogue: Catalogue) -> str:
    """The page, in Markdown."""
    cells = matrix(catalogue)
    lines = [_HEAD, matrix_table(catalogue)]
    for name in sorted(table.name for table in catalogue if not table.parent):
        receivers = [str(relation) for relation, cell in cells[name].items() if cell.receives]
        lines += _described(catalogue, catalogue[name], ", ".join(receivers) or "nobody")
        for member in catalogue.members_of(name):
            lines += _columns(member, f"### {member.name}\n\nMember of {name} (`{member.parent_column}`).")
    return "\n".join(lines) + "\n"


def _described(catalogue: Catalogue, table: Table, receivers: str) -> Iterator[str]:
    notes = [text for text in _notes(catalogue, table) if text]
    told = f"Kind {table.kind.value.replace('_', ' ')}; {rule_of(table).value}. Receives: {receivers}."
    yield from _columns(table, f"\n## {table.name}\n\n{' '.join([told, *notes])}")


def _notes(catalogue: Catalogue, table: Table) -> Iterator[str]:
    yield f"Final when `{table.final_column}` is {' or '.join(table.final_words)}." if table.final_column else ""
    visible_with = [column for column, _ in catalogue.visible_with(table)]
    yield f"Visible with `{'` and `'.join(visible_with)}`." if visible_with else ""
    if catalogue.stays_while_used(table) and not table.active_column:
        yield "Cannot be deleted while other records refer to it."
    yield f"Visible in stores by `{table.visibility_table}`." if table.visibility_table else ""
    yield f"In use, it is switched off by `{table.active_column}` instead of deleted." if table.active_column else ""
    yield "Left out with the transactions of a dispensary store." if table.follows_transactions else ""
    yield "Entered by the primary where it is centralised." if table.can_be_centralised else ""
    yield f"Goes to `{table.receiving_store_column}` too." if table.receiving_store_column else ""


def _columns(table: Table, head: str) -> Iterator[str]:
    yield f"{head}\n\n| column | field | type | refers to |\n|---|---|---|---|"
    for column in table.columns:
        yield f"| `{column.name}` | {column.number} | {_type(column)} | {_reference(column)} |"
    yield ""


_TYPES: Mapping[ColumnType, str] = {
    ColumnType.DATE: "day, `YYYY-MM-DD`",
    ColumnType.TIME: "instant in UTC",
    ColumnType.DECIMAL: "decimal, as text",
    ColumnType.BOOLEAN: "boolean, 0 or 1",
    ColumnType.INTEGER: "whole number",
}


def _type(column: Column) -> str:
    told = ", ".join(column.words.values()) if column.words else _TYPES.get(column.type, "text")
    return f"{told}; may be NULL" if column.optional else told


def _reference(column: Column) -> str:
    if not column.refers_to:
        return ""
    return f"{column.refers_to}{'' if column.required else ' (loose)'}"
