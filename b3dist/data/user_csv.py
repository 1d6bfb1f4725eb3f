"""Small tables a user writes by hand (events, renames): read strictly, refused with file, line and column."""

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from b3dist.errors import DataError

_TICKER = re.compile(r"[A-Z0-9]{5,12}")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a user's table; `parse` raises ValueError on what is not `expected`."""

    name: str
    parse: Callable[[str], object]
    expected: str
    optional: bool = False


def parse_ticker(text: str) -> str:
    """An upper-case ticker like PETR4; lower case is accepted."""
    ticker = text.upper()
    if not _TICKER.fullmatch(ticker):
        raise ValueError(text)
    return ticker


def parse_session(text: str) -> date:
    """An ISO date like 2018-12-28."""
    return date.fromisoformat(text)


def read_user_csv(path: Path, *, columns: Sequence[Column]) -> list[dict[str, object]]:
    """The rows of a comma-separated file with a header line, values parsed by column; blank lines are skipped.

    An absent or empty value of an optional column is ''. Unknown columns are ignored: a note beside a row is welcome.

    Raises:
        DataError: unreadable file, missing column, wrong number of values or a bad value; names file, line and column.
    """
    header = ",".join(column.name for column in columns)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            names = [name.strip() for name in next(reader, [])]
            for column in columns:
                if column.name not in names and not column.optional:
                    got = ",".join(names) or "nothing"
                    raise DataError(f"{path}:1: column {column.name!r} is missing: expected {header}, got {got}")
            return [
                _parse_row(f"{path}:{reader.line_num}", names, values, columns)
                for values in reader
                if any(value.strip() for value in values)
            ]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", hint=f"expected a CSV file with {header}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a UTF-8 CSV file: {error}", hint=f"expected lines like {header}") from error


def _parse_row(where: str, names: list[str], values: list[str], columns: Sequence[Column]) -> dict[str, object]:
    if len(values) > len(names):
        raise DataError(f"{where}: expected {len(names)} values ({','.join(names)}), got {len(values)}")
    row = dict(zip(names, (value.strip() for value in values), strict=False))
    parsed: dict[str, object] = {}
    for column in columns:
        text = row.get(column.name, "")
        if column.optional and not text:
            parsed[column.name] = ""
            continue
        try:
            parsed[column.name] = column.parse(text)
        except ValueError:
            raise DataError(f"{where}: column {column.name!r}: expected {column.expected}, got {text!r}") from None
    return parsed
