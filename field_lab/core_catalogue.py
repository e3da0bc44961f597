"""A part of the catalogue in which every kind of table and every option of one occurs: the simulator and most tests use
it, because a database of all tables takes ten times as long to make and to open. What has to hold for every table is
tried with every table.
"""

from functools import cache

from engine.catalogue.descriptors import catalogue
from engine.catalogue.model import Catalogue

CORE = (
    "unit", "item", "name", "store", "site", "store_copy", "name_visibility", "item_visibility", "location_type",
    "location", "stock_line", "stocktake", "stocktake_line", "invoice", "invoice_line", "transaction_category",
    "transaction_note", "master_list", "master_list_line", "master_list_name_link", "diagnosis", "patient",
    "patient_visibility", "prescriber", "prescriber_visibility", "message", "user_account",
)  # fmt: skip


@cache
def core_catalogue() -> Catalogue:
    """The tables of `CORE`. The same object at each call."""
    return catalogue().part(CORE)
