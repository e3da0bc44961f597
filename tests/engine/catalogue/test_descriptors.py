"""The catalogue says what the contract says, and refuses messages that break its rules."""

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from packhorse.catalogue.v1 import options_pb2

from engine.catalogue.descriptors import catalogue, catalogue_of, record_files
from engine.catalogue.model import ColumnType
from tests.engine.catalogue.dynamic import ID, STORE, central, changed_catalogue, field, file_of, message

TableOptions = options_pb2.TableOptions
FinalWhen = options_pb2.FinalWhen


def made(*messages: DescriptorProto) -> None:
    catalogue_of([file_of(messages)])


def refers(name: str, table: str, number: int = 2, *, required: bool = True) -> Field:
    return field(name, number, refers_to=table, required=required)


def store_table(**more: object) -> TableOptions:
    return TableOptions(name="thing", kind=STORE, **more)  # type: ignore[arg-type]


NESTED = DescriptorProto(name="Nested", field=[field("text", 1)])
PLAIN = message("Plain", central("plain"), ID)
BROKEN: dict[str, tuple[list[DescriptorProto], str]] = {
    "no fields": ([message("Thing", central("thing"))], "Thing"),
    "first field is not id": (
        [message("Thing", central("thing"), field("code", 1), field("id", 2))], "Thing: .*id = 1"),
    "id is not field 1": ([message("Thing", central("thing"), field("id", 2))], "Thing: .*id = 1"),
    "id is a number": ([message("Thing", central("thing"), field("id", 1, Field.TYPE_INT64))], "Thing: .*id = 1"),
    "float": ([message("Thing", central("thing"), ID, field("rate", 2, Field.TYPE_FLOAT))], "Thing.rate"),
    "double": ([message("Thing", central("thing"), ID, field("rate", 2, Field.TYPE_DOUBLE))], "Thing.rate"),
    "bytes": ([message("Thing", central("thing"), ID, field("blob", 2, Field.TYPE_BYTES))], "Thing.blob"),
    "repeated": ([message("Thing", central("thing"), ID, field("tags", 2, repeated=True))], "Thing.tags: .*flat"),
    "nested message": (
        [NESTED, message("Thing", central("thing"), ID,
                         field("inner", 2, Field.TYPE_MESSAGE, type_name=".packhorse.records.v1.Nested"))],
        "Thing.inner: .*flat",
    ),
    "no kind": ([message("Thing", TableOptions(name="thing"), ID)], "Thing"),
    "no table name": ([message("Thing", central(""), ID)], "Thing"),
    "a name that SQL would have to quote": ([message("Thing", central("some thing"), ID)], "Thing"),
    "one name twice": ([PLAIN, message("Other", central("plain"), ID)], "same table name"),
    "an unknown reference": (
        [message("Thing", central("thing"), ID, refers("x_id", "nothing"))], "thing.x_id .*nothing"),
    "an unknown loose reference": (
        [message("Thing", central("thing"), ID, refers("x_id", "nothing", required=False))], "thing.x_id .*nothing"),
    "a cycle of two": (
        [message("One", central("one"), ID, refers("b_id", "two")),
         message("Two", central("two"), ID, refers("a_id", "one"))],
        "cycle among one, two",
    ),
    "a cycle of three": (
        [PLAIN, message("One", central("one"), ID, refers("b_id", "two")),
         message("Two", central("two"), ID, refers("c_id", "three")),
         message("Three", central("three"), ID, refers("p_id", "plain"), refers("a_id", "one", 3))],
        "cycle among one, three, two",
    ),
    "no store": ([message("Thing", store_table(), ID)], "Thing: .*store_column"),
    "a store column that is not there": ([message("Thing", store_table(store_column="x"), ID)], "Thing: .*column x"),
    "a parent column that is not there": ([message("Thing", store_table(parent_column="x"), ID)], "Thing: .*column x"),
    "a parent column that refers to nothing": (
        [message("Thing", store_table(parent_column="x"), ID, field("x", 2))], "Thing"),
    "a member of another kind than its root": (
        [PLAIN, message("Thing", store_table(parent_column="x"), ID, refers("x", "plain"))], "Thing|thing"),
    "a final column that is not there": (
        [message("Thing", store_table(store_column="id", final_when=FinalWhen(column="x", words=["done"])), ID)],
        "Thing: .*column x",
    ),
    "final, but no word for it": (
        [message("Thing", store_table(store_column="id", final_when=FinalWhen(column="status")), ID,
                 field("status", 2))],
        "Thing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_message_that_breaks_a_rule_is_refused_by_name(case: str) -> None:
    messages, text = BROKEN[case]
    with pytest.raises(ValueError, match=text):
        made(*messages)


def test_loose_references_may_form_a_cycle_and_a_table_may_refer_to_itself() -> None:
    one = message("One", central("one"), ID, refers("b_id", "two"), refers("up_id", "one", 3))
    two = message("Two", central("two"), ID, refers("a_id", "one", required=False))
    assert list(catalogue_of([file_of([one, two])]).tables) == ["two", "one"]


def test_messages_without_the_option_are_no_tables() -> None:
    assert list(catalogue_of([file_of([NESTED, PLAIN])]).tables) == ["plain"]


def test_a_catalogue_is_the_same_object_each_time() -> None:
    assert catalogue() is catalogue()


COLUMNS = (
    # table, column, type, SQL, optional, default
    ("invoice", "id", ColumnType.TEXT, "TEXT", False, ""),
    ("invoice", "number", ColumnType.INTEGER, "INTEGER", False, 0),
    ("invoice", "type", ColumnType.WORD, "TEXT", False, "unspecified"),
    ("invoice", "created_at", ColumnType.TIME, "TEXT", True, None),
    ("invoice", "on_hold", ColumnType.BOOLEAN, "INTEGER", False, 0),
    ("invoice_line", "expiry_date", ColumnType.DATE, "TEXT", True, None),
    ("invoice_line", "pack_size", ColumnType.DECIMAL, "TEXT", False, "0"),
    ("stocktake_line", "counted_number_of_packs", ColumnType.DECIMAL, "TEXT", True, None),
    ("store_copy", "site", ColumnType.INTEGER, "INTEGER", False, 0),
)


@pytest.mark.parametrize(("table", "name", "kind", "sql", "optional", "default"), COLUMNS)
def test_columns_have_the_types_of_the_contract(
    table: str, name: str, kind: ColumnType, sql: str, optional: bool, default: object
) -> None:
    column = catalogue()[table].column(name)
    assert (column.type, column.type.sql, column.optional, column.default) == (kind, sql, optional, default)


def test_words_are_those_of_the_contract() -> None:
    invoice = catalogue()["invoice"]
    assert invoice.column("type").words == {
        0: "unspecified", 1: "customer_invoice", 2: "supplier_invoice", 3: "customer_credit",
        4: "supplier_credit", 5: "repack", 6: "build",
    }  # fmt: skip
    assert invoice.column("status").words == {
        0: "unspecified",
        1: "new",
        2: "suggested",
        3: "confirmed",
        4: "finalised",
    }
    assert set(catalogue()["store"].column("mode").words.values()) == {"unspecified", "store", "dispensary"}


DOCUMENTS = {
    **{name: (f"{name}_line",) for name in (
        "invoice", "stocktake", "requisition", "customer_stock_history", "purchase_order", "goods_received",
        "replenishment", "box", "master_list", "bill_of_materials",
    )},
    "payment": ("payment_allocation",), "item_group": ("item_group_member",), "name_group": ("name_group_member",),
    "property": ("property_choice",), "program": ("program_order_type",), "regimen": ("regimen_item",),
    "indicator": ("indicator_column", "indicator_row"), "vaccine_course": ("vaccine_course_dose",),
    "drug_interaction_group": ("drug_interaction_group_member",),
    "patient": ("insurance_policy", "patient_event", "patient_medication_record", "patient_repeat"),
}  # fmt: skip
FINAL = {"invoice", "stocktake", "requisition", "purchase_order", "goods_received", "replenishment", "payment"}


def test_documents_are_those_of_the_contract() -> None:
    for table in catalogue():
        members = tuple(sorted(member.name for member in catalogue().members_of(table.name)))
        assert members == DOCUMENTS.get(table.name, ())
        assert catalogue().root_of(table).name == (table.parent or table.name)
        if table.parent:
            assert table.parent_column == f"{table.parent}_id"
        final = ("status", ("finalised",)) if table.name in FINAL else ("", ())
        assert (table.final_column, table.final_words) == final


def test_every_message_with_the_option_is_a_table() -> None:
    messages = [message for file in record_files() for message in file.message_types_by_name.values()]
    assert {message.full_name for message in messages} == {table.message.DESCRIPTOR.full_name for table in catalogue()}


CHANGES = {
    "a field more": lambda: changed_catalogue([field("added", 100)]),
    "a field less": lambda: changed_catalogue(removed=["comment"]),
    "a word more": lambda: changed_catalogue(words={"StoreMode": {"STORE_MODE_DEPOT": 9}}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_hash_tells_catalogues_apart(change: str) -> None:
    assert changed_catalogue().hash == catalogue().hash
    assert CHANGES[change]().hash != catalogue().hash


def test_words_lose_the_prefix_of_their_enum() -> None:
    values = [
        EnumValueDescriptorProto(name=f"ITEM_KIND_{word}", number=at) for at, word in enumerate(("NONE", "COLD_CHAIN"))
    ]
    kind = field("kind", 2, Field.TYPE_ENUM, type_name=".packhorse.records.v1.ItemKind")
    file = file_of([message("Thing", central("thing"), ID, kind)], [EnumDescriptorProto(name="ItemKind", value=values)])
    assert catalogue_of([file])["thing"].column("kind").words == {0: "none", 1: "cold_chain"}
