"""The catalogue is the specification's: every row of its table "Data types" has its tables, of its kind, with columns
that say what people record there."""

import pytest

from engine.catalogue.descriptors import catalogue
from engine.catalogue.model import ColumnType, Kind, Table

DATA_TYPES: dict[str, tuple[Kind, str]] = {
    "Items, with item categories, units, BOM masters": (
        Kind.CENTRAL,
        "item item_category item_category_link unit bill_of_materials bill_of_materials_line",
    ),
    "Names except patients, with name categories, contacts, tags": (
        Kind.CENTRAL,
        "name name_category name_category_link name_contact name_tag name_tag_link",
    ),
    "Merging of items, units and names (except patients)": (Kind.CENTRAL, "item_merge unit_merge name_merge"),
    "Groups and departments": (
        Kind.CENTRAL,
        "item_group item_group_member name_group name_group_member item_department department",
    ),
    "Item master lists and programmes": (
        Kind.CENTRAL,
        "master_list master_list_line master_list_name_link program program_order_type program_name_tag_link",
    ),
    "Budgets, periods and accounts": (Kind.CENTRAL, "budget period period_schedule account"),
    "Transaction categories and payment types": (
        Kind.CENTRAL,
        "transaction_category prescription_category payment_type",
    ),
    "Purchase order categories": (Kind.CENTRAL, "purchase_order_category"),
    "Custom data": (Kind.CENTRAL, "custom_field custom_value"),
    "Barcodes": (Kind.CENTRAL, "barcode"),
    "Currencies": (Kind.CENTRAL, "currency"),
    "Options and properties": (Kind.CENTRAL, "option_choice property property_choice name_property_value"),
    "Location types": (Kind.CENTRAL, "location_type"),
    "Regimens and indicators": (
        Kind.CENTRAL,
        "regimen regimen_item indicator indicator_row indicator_column",
    ),
    "Drug interactions and warnings": (
        Kind.CENTRAL,
        "drug_interaction_group drug_interaction_group_member drug_interaction item_warning",
    ),
    "Abbreviations and item directions": (Kind.CENTRAL, "abbreviation item_direction"),
    "Diagnoses": (Kind.CENTRAL, "diagnosis"),
    "Insurance providers": (Kind.CENTRAL, "insurance_provider"),
    "Patient event types": (Kind.CENTRAL, "patient_event_type"),
    "Vaccinators and vaccine settings": (
        Kind.CENTRAL,
        "vaccinator vaccine_course vaccine_course_dose vaccine_vial_monitor_status",
    ),
    "Custom reports": (Kind.CENTRAL, "custom_report"),
    "Asset settings": (Kind.CENTRAL, "asset_class asset_category asset_type asset_log_reason"),
    "Regions": (Kind.CENTRAL, "region name_region_link"),
    "Sites and sync-related preferences": (Kind.SYNC, "site store_copy"),
    "Dashboard reports": (Kind.SYNC, "dashboard_report"),
    "Messages": (Kind.MESSAGE, "message"),
    "Stores and store preferences not about sync": (Kind.CENTRAL_STORE, "store store_preference"),
    "Visibility of items and names (except patients)": (Kind.CENTRAL_STORE, "item_visibility name_visibility"),
    "Visibility of existing patients and prescribers": (
        Kind.CENTRAL_STORE,
        "patient_visibility prescriber_visibility",
    ),
    "Patients and prescribers, with PMR, insurance policies": (
        Kind.PATIENT,
        "patient prescriber patient_medication_record insurance_policy",
    ),
    "Merging of patients and prescribers": (Kind.PATIENT, "patient_merge prescriber_merge"),
    "Repeats": (Kind.PATIENT, "patient_repeat"),
    "Patient events": (Kind.PATIENT, "patient_event"),
    "Name notes": (Kind.STORE, "name_note"),
    "Customer stock history and requisitions": (
        Kind.STORE,
        "customer_stock_history customer_stock_history_line requisition requisition_line",
    ),
    "Locations": (Kind.STORE, "location"),
    "Merging locations": (Kind.STORE, "location_merge"),
    "Stock and replenishments": (Kind.STORE, "stock_line replenishment replenishment_line"),
    # An adjustment is an invoice for the reserved name of inventory adjustments.
    "Stocktakes and inventory adjustments": (Kind.STORE, "stocktake stocktake_line invoice invoice_line"),
    "AMC projections": (Kind.STORE, "consumption_projection"),
    # A prescription is a customer invoice in dispensary mode, a build one of type build.
    "Transactions and prescriptions": (Kind.STORE, "invoice invoice_line backorder transfer_log"),
    "Transaction notes": (Kind.STORE, "transaction_note"),
    "Item notes": (Kind.STORE, "item_note"),
    "Boxes": (Kind.STORE, "box box_line"),
    "Goods received": (Kind.STORE, "goods_received goods_received_line"),
    "Indicator values": (Kind.STORE, "indicator_value"),
    "Vaccine monitors / sensors": (Kind.STORE, "sensor temperature_log temperature_breach"),
    "Assets": (Kind.STORE, "asset asset_log"),
    "Store credentials": (Kind.STORE, "store_credential"),
    "Authorisers and authorisation": (Kind.STORE, "authoriser authorisation"),
    "Purchase orders": (Kind.STORE, "purchase_order purchase_order_line"),
    "Payments": (Kind.STORE, "payment payment_allocation"),
    "New users": (Kind.STORE, "new_user"),
    "User licences and existing users": (Kind.LOCAL, "user_licence user_account"),
    "User permissions": (Kind.LOCAL, "user_permission"),
    "Preferences (non-store)": (Kind.LOCAL, "local_preference"),
    "Tenders and quotes": (Kind.LOCAL, "tender quote"),
    "Incoterms and tender conditions": (Kind.LOCAL, "incoterm tender_condition"),
    "Reference documents": (Kind.LOCAL, "reference_document"),
    "HIS": (Kind.LOCAL, "hospital_message"),
    "Drug registration": (Kind.LOCAL, "drug_registration"),
    "Labels": (Kind.LOCAL, "label_template"),
    "Logs": (Kind.LOCAL, "log_entry"),
    "Reminders": (Kind.LOCAL, "reminder"),
    "Adverse drug reactions": (Kind.LOCAL, "adverse_drug_reaction"),
}
"""Row of the table "Data types" -> its kind and its tables. The rows that share the tables of others: `SHARED`."""
SHARED = {
    "Purchase orders (centralised)": ("purchase_order", "they are marked: who edits them then comes with procurement"),
    "Payments (centralised)": ("payment", "they are marked: who edits them then comes with procurement"),
    "Visibility of new patients and prescribers": (
        "patient_visibility prescriber_visibility",
        "the home store sees its own new patients; that a site sends their visibility comes with the special data",
    ),
}
"""Row of that table whose records are in the tables of another row -> those tables, and what tells them apart."""
DISPENSARY_DATA = {
    "abbreviation", "item_direction", "diagnosis", "insurance_provider", "patient_event_type", "prescription_category",
}  # fmt: skip
TRANSACTIONS = {"invoice", "stock_line", "stocktake", "backorder", "transaction_note"}
FEWER_COLUMNS = {
    "item_group_member": "it is the place of an item in a group, and nothing else of either",
    "location": "a shelf is a code, a name and what may lie there; its store says the rest",
    "site": "a site is a number, a name and the right of the primary; what else it has is the central's own business",
}
"""Synchronised tables with fewer than six typed columns of their own, and why."""


def own_columns(table: Table) -> int:
    """The columns beside its id, its store and its document."""
    return len({column.name for column in table.columns} - {"id", table.store_column, table.parent_column})


@pytest.mark.parametrize("row", DATA_TYPES)
def test_every_row_has_its_tables_of_its_kind(row: str) -> None:
    kind, names = DATA_TYPES[row]
    assert {catalogue()[name].kind for name in names.split()} == {kind}


def test_rows_that_share_tables_name_tables_of_others() -> None:
    assert not SHARED.keys() & DATA_TYPES.keys()
    assert {name for names, _ in SHARED.values() for name in names.split()} <= catalogue().tables.keys()


def test_every_table_belongs_to_a_row() -> None:
    mapped = {name for _, names in DATA_TYPES.values() for name in names.split()}
    assert mapped == set(catalogue().tables)


def test_synchronised_tables_say_what_people_record() -> None:
    few = {table.name for table in catalogue().synchronised if own_columns(table) < 6}
    assert few == set(FEWER_COLUMNS)


def test_local_tables_have_their_most_telling_columns() -> None:
    assert all(2 <= own_columns(table) <= 4 for table in catalogue() if not table.travels)


def test_special_notes_are_options() -> None:
    told = {table.name: table for table in catalogue()}
    assert {name for name, table in told.items() if table.is_dispensary_data} == DISPENSARY_DATA
    assert {name for name, table in told.items() if table.follows_transactions} == TRANSACTIONS
    assert {name for name, table in told.items() if table.can_be_centralised} == {"purchase_order", "payment"}
    assert {name: table.visibility_table for name, table in told.items() if table.visibility_table} == {
        name: f"{name}_visibility" for name in ("item", "name", "patient", "prescriber")
    }


def test_no_column_catches_everything() -> None:
    """Protobuf's bytes and messages are refused as columns; nothing is a bag of JSON either."""
    for table in catalogue():
        for column in table.columns:
            assert column.type in ColumnType
            assert not {"json", "blob", "data", "payload", "extra"} & set(column.name.split("_")), (table.name, column)


def test_central_data_that_can_be_switched_off_say_how() -> None:
    for table in catalogue():
        switch = "is_active" in table.index and table.kind is Kind.CENTRAL and not table.parent
        assert table.active_column == ("is_active" if switch else "")
