"""The triggers of a synchronised table, generated from the catalogue: authority before an edit, capture after it.

Rules of this file (DESIGN laws 1 and 2; protocol review F2, F3, F21, F23):

1. Triggers use built-in functions only, so that any program that opens the file can write.
2. Capture is UPSERT into the outbox: the conflict clause of the outer statement (OR REPLACE, OR IGNORE ...) overrides
   a conflict clause inside a trigger, but not an UPSERT. Tokens come from a counter row and never repeat.
3. Every check stands in a BEFORE trigger, against NEW and against the row that is there (INSERT OR REPLACE and UPSERT
   pass BEFORE INSERT while the old row is still visible).
4. A central record that is in use is not deleted (F55). Where its table has a column for that, it is switched off: the
   trigger changes the row and lets the delete of this one row fall; elsewhere the delete is refused. A use that is not
   seen here is judged by the central (in_use.py).
5. Nothing fires while the engine applies what a peer wrote: `sync_flag.applying`, set and cleared inside that
   transaction; SQLite's single writer keeps every other program out meanwhile.

Theory of INSERT OR REPLACE. It means: update that row. With `recursive_triggers` off it fires no delete trigger and
needs no care. With it on, the delete triggers of the replaced row fire between BEFORE INSERT and AFTER INSERT, and a
root must not take its lines along then. BEFORE INSERT therefore marks the id that is there already, with the values
of total_changes() and changes(); in BEFORE DELETE of the same statement the former has grown by exactly the marking
itself and the latter is unchanged, in a later statement it is not so (but for a delete straight after an INSERT OR
IGNORE of the same id that changed nothing). Whether recursive triggers are on is found by a table whose trigger updates
itself: it fires once or twice. Whatever is misjudged in the case in brackets only leaves lines without a document, and
the engine deletes those when it takes the change out of the outbox; that a final document is never deleted by such a
mistake costs that a final header cannot be replaced, only updated, while recursive triggers are on.
"""

from collections.abc import Iterator, Mapping
from functools import cache

from engine.catalogue.model import Catalogue, Column, ColumnType, Kind, Table
from engine.limits import ID_BYTES_MAX
from engine.rules.authority import RIGHT_OF_KIND, RIGHTS_PER_STORE, Rule, rule_of
from engine.rules.topology import CONFIGURATION_TABLES
from engine.storage.in_use import used
from engine.storage.work import QUEUE, Processor

_NOT_APPLYING = "(SELECT applying FROM sync_flag) = 0"
_IS_REPLACING = "(SELECT is_replacing FROM sync_flag)"


@cache
def triggers_of(catalogue: Catalogue) -> Mapping[str, str]:
    """Trigger name -> CREATE TRIGGER statement, for every table that is synchronised.

    Made once: every session compares them with what is there.
    """
    statements: dict[str, str] = {"sync_probe_again": _PROBE}
    for table in catalogue.synchronised:
        for name, timing, body in _triggers(catalogue, table):
            lines = "\n".join(f"  {statement};" for statement in body)
            full_name = f"sync_{table.name}_{name}"
            statements[full_name] = (
                f"CREATE TRIGGER {full_name} {timing} ON {table.name} WHEN {_NOT_APPLYING} BEGIN\n{lines}\nEND"
            )
    return statements


_PROBE = (
    "CREATE TRIGGER sync_probe_again AFTER UPDATE ON sync_probe WHEN NEW.depth < 2 BEGIN\n"
    "  UPDATE sync_probe SET depth = depth + 1;\nEND"
)


def _triggers(catalogue: Catalogue, table: Table) -> Iterator[tuple[str, str, list[str]]]:
    # A delete that is only a part of a replacing takes no lines along, switches nothing off and ends no use.
    knows_replacing = bool(catalogue.members_of(table.name)) or catalogue.stays_while_used(table)
    yield (
        "before_insert",
        "BEFORE INSERT",
        [*_insert_checks(catalogue, table), *_mark_replacing(table, knows_replacing)],
    )
    yield "after_insert", "AFTER INSERT", [*_capture(catalogue, table, "NEW"), *_unmark_replacing(knows_replacing)]
    yield "before_update", "BEFORE UPDATE", list(_update_checks(catalogue, table))
    yield "after_update", "AFTER UPDATE", list(_capture(catalogue, table, "NEW"))
    yield "before_delete", "BEFORE DELETE", list(_delete_checks(catalogue, table, knows_replacing))
    yield "after_delete", "AFTER DELETE", list(_capture(catalogue, table, "OLD"))


def _refuse(rule: Rule, condition: str) -> str:
    return f"SELECT RAISE(ABORT, '{rule.text}') WHERE {condition}"


def _store_of(catalogue: Catalogue, table: Table, row: str) -> str:
    """SQL for the key of the right that covers a row: a store's id where the right is per store, else empty text."""
    root = catalogue.root_of(table)
    if RIGHT_OF_KIND[root.kind] not in RIGHTS_PER_STORE:
        return "''"
    if root is table:
        return f"{row}.{table.store_column}"
    return f"(SELECT {root.store_column} FROM {root.name} WHERE id = {row}.{table.parent_column})"


def _authority(catalogue: Catalogue, table: Table, row: str) -> str:
    rule = rule_of(table)
    if table.name in CONFIGURATION_TABLES:
        return _refuse(rule, "(SELECT administering FROM sync_flag) = 0")
    right, key = RIGHT_OF_KIND[table.kind], _store_of(catalogue, table, row)
    held = f"SELECT 1 FROM sync_authority WHERE owner = '{right}' AND key = {key}"
    return _refuse(rule, f"NOT EXISTS ({held})")


def _insert_checks(catalogue: Catalogue, table: Table) -> Iterator[str]:
    exists = f"EXISTS (SELECT 1 FROM {table.name} WHERE id = NEW.id)"
    size = f"length(CAST(NEW.id AS BLOB)) NOT BETWEEN 1 AND {ID_BYTES_MAX}"
    yield _refuse(Rule.ID_REQUIRED, f"NEW.id IS NULL OR typeof(NEW.id) <> 'text' OR {size} OR {not_unicode('NEW.id')}")
    if table.parent:
        parent = f"SELECT 1 FROM {table.parent} WHERE id = NEW.{table.parent_column}"
        yield _refuse(Rule.PARENT_REQUIRED, f"NOT EXISTS ({parent})")
    yield _authority(catalogue, table, "NEW")
    for rule, column in _routing_keys(catalogue, table):
        other = f"SELECT 1 FROM {table.name} WHERE id = NEW.id AND {column} IS NOT NEW.{column}"
        yield _refuse(rule, f"EXISTS ({other})")
    yield from _id_is_free(table)
    if table.kind is Kind.MESSAGE:
        yield _refuse(Rule.MESSAGE_IS_SENT, exists)
    if table.final_column:
        yield _refuse(Rule.FINALISE_LAST, f"{_is_final(table, 'NEW')} AND NOT {exists}")
        was_final = f"SELECT 1 FROM {table.name} WHERE id = NEW.id AND {_is_final(table, table.name)}"
        yield _refuse(Rule.FINAL_IS_FINAL, f"NOT {_is_final(table, 'NEW')} AND EXISTS ({was_final})")
    yield from _parent_not_final(catalogue, table, "NEW")
    yield _refuse(Rule.VALUE_VALID, " OR ".join(_misfits(column, f"NEW.{column.name}") for column in table.columns))


def not_unicode(text: str) -> str:
    """SQL that is true when a short text is no UTF-8, which no message can carry: a character of it is not what its
    code point gives. SQLite has no code point for U+FFFE and U+FFFF, which no text should hold: they count as wrong."""
    places = f"SELECT 1 AS n UNION ALL SELECT n + 1 FROM place WHERE n < length({text})"
    character = f"substr({text}, n, 1)"
    wrong = f"CAST(char(unicode({character})) AS BLOB) <> CAST({character} AS BLOB)"
    return f"({text} GLOB '*[^ -~]*' AND EXISTS (WITH place AS ({places}) SELECT 1 FROM place WHERE {wrong}))"


def _id_is_free(table: Table) -> Iterator[str]:
    """A deleted record's id may come back in its own document or store only: elsewhere both would claim its history."""
    this = f"table_name = '{table.name}' AND id = NEW.id"
    if table.parent:
        for known in ("sync_outbox", "sync_record"):
            used = f"SELECT 1 FROM {known} WHERE {this} AND root_id IS NOT NEW.{table.parent_column}"
            yield _refuse(Rule.ID_USED, f"EXISTS ({used})")
    elif RIGHT_OF_KIND[table.kind] in RIGHTS_PER_STORE:
        used = f"SELECT 1 FROM sync_outbox WHERE {this} AND store_id IS NOT NEW.{table.store_column}"
        yield _refuse(Rule.ID_USED, f"EXISTS ({used})")


def _update_checks(catalogue: Catalogue, table: Table) -> Iterator[str]:
    yield _authority(catalogue, table, "OLD")
    if table.kind is Kind.MESSAGE:
        yield _refuse(Rule.MESSAGE_IS_SENT, "true")
    yield _refuse(Rule.ID_IMMUTABLE, "OLD.id IS NOT NEW.id")
    for rule, column in _routing_keys(catalogue, table):
        yield _refuse(rule, f"OLD.{column} IS NOT NEW.{column}")
    if table.final_column:
        yield _refuse(Rule.FINAL_IS_FINAL, f"{_is_final(table, 'OLD')} AND NOT {_is_final(table, 'NEW')}")
    yield from _parent_not_final(catalogue, table, "OLD")
    changed = (
        f"(NEW.{column.name} IS NOT OLD.{column.name} AND ({_misfits(column, f'NEW.{column.name}')}))"
        for column in table.columns
    )
    yield _refuse(Rule.VALUE_VALID, " OR ".join(changed))


def _delete_checks(catalogue: Catalogue, table: Table, knows_replacing: bool) -> Iterator[str]:
    yield _authority(catalogue, table, "OLD")
    if table.kind is Kind.MESSAGE:
        yield _refuse(Rule.MESSAGE_IS_SENT, "true")
    if knows_replacing:
        mark = f"replacing_table = '{table.name}' AND replacing_id = OLD.id"
        same_statement = "replacing_total + 1 = total_changes() AND replacing_changes = changes()"
        yield f"UPDATE sync_flag SET is_replacing = ({mark} AND {same_statement})"
        yield "UPDATE sync_probe SET depth = 0"
        yield "UPDATE sync_flag SET is_replacing = is_replacing AND (SELECT depth = 2 FROM sync_probe)"
    if table.active_column:
        condition = f"NOT {_IS_REPLACING} AND {used(catalogue, table, 'OLD.id')}"
        yield f"UPDATE {table.name} SET {table.active_column} = 0 WHERE id = OLD.id AND {condition}"
        yield f"SELECT RAISE(IGNORE) WHERE {condition}"
    elif catalogue.stays_while_used(table):
        rule = Rule.STORE_STAYS if table.is_store_record else Rule.IN_USE
        yield _refuse(rule, f"NOT {_IS_REPLACING} AND {used(catalogue, table, 'OLD.id')}")
    if table.final_column:  # also what only looks like a replacing: a final document is never deleted by mistake
        yield _refuse(Rule.FINAL_IS_FINAL, _is_final(table, "OLD"))
    yield from _parent_not_final(catalogue, table, "OLD")
    for member in catalogue.members_of(table.name):
        yield f"DELETE FROM {member.name} WHERE {member.parent_column} = OLD.id AND NOT {_IS_REPLACING}"


def _parent_not_final(catalogue: Catalogue, table: Table, row: str) -> Iterator[str]:
    if not table.parent or not (root := catalogue[table.parent]).final_column:
        return
    parent = f"SELECT 1 FROM {root.name} WHERE id = {row}.{table.parent_column} AND {_is_final(root, root.name)}"
    yield _refuse(Rule.FINAL_IS_FINAL, f"EXISTS ({parent})")


def _routing_keys(catalogue: Catalogue, table: Table) -> Iterator[tuple[Rule, str]]:
    if table.name in catalogue.subjects:
        yield Rule.SUBJECT_IMMUTABLE, catalogue.subjects[table.name][1]
    if table.parent_column:
        yield Rule.PARENT_IMMUTABLE, table.parent_column
    if table.store_column and table.store_column != "id":
        yield Rule.STORE_IMMUTABLE, table.store_column


def _is_final(table: Table, row: str) -> str:
    words = ", ".join(f"'{word}'" for word in table.final_words)
    return f"({row}.{table.final_column} IN ({words}))"


def _mark_replacing(table: Table, knows_replacing: bool) -> Iterator[str]:
    if knows_replacing:
        exists = f"EXISTS (SELECT 1 FROM {table.name} WHERE id = NEW.id)"
        yield (
            f"UPDATE sync_flag SET replacing_table = '{table.name}', replacing_id = NEW.id, "
            f"replacing_total = total_changes(), replacing_changes = changes() WHERE {exists}"
        )


def _unmark_replacing(knows_replacing: bool) -> Iterator[str]:
    if knows_replacing:
        yield "UPDATE sync_flag SET replacing_table = '', replacing_id = '', is_replacing = 0 WHERE replacing_id <> ''"


def _capture(catalogue: Catalogue, table: Table, row: str) -> Iterator[str]:
    root = catalogue.root_of(table)
    root_id = f"{row}.{table.parent_column}" if table.parent else f"{row}.id"
    key = _store_of(catalogue, table, row)
    store = "a.key" if RIGHT_OF_KIND[root.kind] in RIGHTS_PER_STORE else "''"
    yield "UPDATE sync_counter SET last = last + 1"
    yield (
        "INSERT INTO sync_outbox (table_name, id, root_table, root_id, store_id, token, queued_at, term, term_id)\n"
        f"    SELECT '{table.name}', {row}.id, '{root.name}', {root_id}, {store}, c.last, c.last, a.term, a.term_id\n"
        "    FROM sync_counter AS c, sync_authority AS a"
        f" WHERE a.owner = '{RIGHT_OF_KIND[table.kind]}' AND a.key = {key}\n"
        "    ON CONFLICT (table_name, id) DO UPDATE SET token = excluded.token,\n"
        # An edit on top of one that is on its way starts afresh; of several that wait together the lowest term counts.
        "      term_id = iif(token = framed_token OR excluded.term < term, excluded.term_id, term_id),\n"
        "      term = iif(token = framed_token OR excluded.term < term, excluded.term, term)"
    )
    if (subject := catalogue.subjects.get(table.name)) and subject[0].kind is Kind.PATIENT:
        at_central = (
            f"'{subject[0].name}', {row}.{subject[1]}, 1 FROM sync_meta WHERE key = 'role' AND value = 'central'"
        )
        yield QUEUE.format(values=f"SELECT '{Processor.ROUTE}', {at_central}")


def _misfits(column: Column, value: str) -> str:
    """SQL that is true when a value does not fit its column."""
    match column.type:
        case ColumnType.TEXT:
            misfit = f"typeof({value}) <> 'text'"
        case ColumnType.INTEGER:
            misfit = f"typeof({value}) <> 'integer' OR {value} NOT BETWEEN {column.least} AND {column.most}"
        case ColumnType.BOOLEAN:
            misfit = f"typeof({value}) <> 'integer' OR {value} NOT IN (0, 1)"
        case ColumnType.WORD:
            words = ", ".join(f"'{word}'" for word in column.words.values())
            misfit = f"typeof({value}) <> 'text' OR {value} NOT IN ({words})"
        case ColumnType.DATE:
            # The second date() is there because the first takes 30 February as it is.
            misfit = f"{value} NOT GLOB '????-??-??' OR date({value}, '+0 days') IS NOT {value}"
        case ColumnType.TIME:
            day, hour, rest = f"substr({value}, 1, 10)", f"substr({value}, 12, 2)", f"substr({value}, 20)"
            misfit = (
                f"{value} NOT GLOB '????-??-??T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]*Z' OR {hour} > '23'"
                f" OR date({day}, '+0 days') IS NOT {day} OR length({value}) > 27"
                f" OR ({rest} <> 'Z' AND ({rest} NOT GLOB '.[0-9]*Z' OR rtrim({rest}, 'Z') GLOB '.*[^0-9]*'))"
                f" OR instr({value}, 'Z') <> length({value})"
            )
        case ColumnType.DECIMAL:
            misfit = (
                f"typeof({value}) <> 'text' OR {value} GLOB '*[^0-9.-]*' OR {value} NOT GLOB '*[0-9]' "
                f"OR ltrim({value}, '-') NOT GLOB '[0-9]*' OR substr({value}, 2) GLOB '*-*' OR {value} GLOB '*.*.*'"
            )
    if column.type.sql == "TEXT":
        misfit = f"{misfit} OR instr({value}, char(0)) > 0"
    return f"({value} IS NOT NULL AND ({misfit}))" if column.optional else f"({misfit})"
