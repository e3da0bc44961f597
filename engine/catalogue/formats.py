"""The text formats of columns: which text is valid."""

import re
from datetime import date, datetime

from engine.catalogue.model import Column, ColumnType, RowValue

_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TRUE = frozenset(("1", "true", "t", "yes", "y"))
_FALSE = frozenset(("0", "false", "f", "no", "n", ""))


def parse(column: Column, text: str) -> RowValue:
    """Reads the text of a CSV field as the value of a column; an empty field is the column's default.

    Raises:
        ValueError: the text does not fit; the exception's text says what would.
    """
    if text == "" and column.type is not ColumnType.TEXT:
        return column.default
    if text == "" and column.optional:
        return None
    return _PARSERS[column.type](column, text)


def _text(_column: Column, text: str) -> RowValue:
    if "\x00" in text:
        raise ValueError("text without NUL characters")
    return text


def _integer(column: Column, text: str) -> RowValue:
    if not re.fullmatch(r"[+-]?[0-9]{1,19}", text, re.ASCII) or not column.least <= int(text) <= column.most:
        raise ValueError(f"a whole number from {column.least} to {column.most}")
    return int(text)


def _boolean(_column: Column, text: str) -> RowValue:
    word = text.strip().lower()
    if word in _TRUE:
        return 1
    if word in _FALSE:
        return 0
    raise ValueError("1 or 0, true or false, yes or no")


def _decimal(_column: Column, text: str) -> RowValue:
    if not _DECIMAL.fullmatch(text):
        raise ValueError("a plain decimal such as 12 or 0.50")
    return text


def _date(_column: Column, text: str) -> RowValue:
    try:
        if _DATE.fullmatch(text):
            date.fromisoformat(text)
            return text
    except ValueError:
        pass  # a day that does not exist: said below
    raise ValueError("a date as YYYY-MM-DD")


def _time(_column: Column, text: str) -> RowValue:
    try:
        if _TIME.fullmatch(text):
            datetime.fromisoformat(text.replace("Z", "+00:00"))
            return text
    except ValueError:
        pass  # an instant that does not exist: said below
    raise ValueError("a time in UTC as YYYY-MM-DDTHH:MM:SSZ")


def _word(column: Column, text: str) -> RowValue:
    word = text.strip().lower()
    if word in column.words.values():
        return word
    raise ValueError("one of " + ", ".join(column.words.values()))


_PARSERS = {
    ColumnType.TEXT: _text,
    ColumnType.INTEGER: _integer,
    ColumnType.BOOLEAN: _boolean,
    ColumnType.DECIMAL: _decimal,
    ColumnType.DATE: _date,
    ColumnType.TIME: _time,
    ColumnType.WORD: _word,
}
