"""Tables set aside by year, in memory while they are few and on disk beyond that."""

from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import feather

from b3dist.errors import StorageError

ROWS_IN_MEMORY: Final = 500_000
"""Some 120 MB of bars; a year of the whole exchange's shares has 110,000."""


class Spool:
    """Collects tables by year; what exceeds ROWS_IN_MEMORY goes to files in `folder`, which is made when needed."""

    def __init__(self, folder: Path, *, rows_in_memory: int = ROWS_IN_MEMORY) -> None:
        self._folder = folder
        self._limit = rows_in_memory
        self._tables: dict[int, list[pa.Table]] = {}
        self._files: dict[int, list[Path]] = {}
        self._rows = 0
        self._spilled = 0

    @property
    def years(self) -> list[int]:
        """Years with at least one table, ascending."""
        return sorted(self._tables.keys() | self._files.keys())

    def add_bars(self, bars: pa.Table) -> None:
        """Add bars of any years, by their sessions.

        Raises:
            StorageError: no room on disk.
        """
        years = pc.year(bars["session"])
        for year in pc.unique(years).to_pylist():
            self.add(year, bars.filter(pc.equal(years, year)))

    def add(self, year: int, table: pa.Table) -> None:
        """Add a table of one year.

        Raises:
            StorageError: no room on disk.
        """
        self._tables.setdefault(year, []).append(table)
        self._rows += len(table)
        if self._rows > self._limit:
            self._spill()

    def take(self, year: int) -> list[pa.Table]:
        """The tables of a year in the order they came, which the spool then forgets."""
        files = [feather.read_table(path, memory_map=False) for path in self._files.pop(year, [])]
        tables = self._tables.pop(year, [])
        self._rows -= sum(map(len, tables))
        return files + tables

    def _spill(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for year, tables in self._tables.items():
                path = self._folder / f"{year}-{self._spilled}.arrow"
                feather.write_feather(pa.concat_tables(tables), path, compression="uncompressed")
                self._files.setdefault(year, []).append(path)
                self._spilled += 1
        except OSError as error:
            raise StorageError(
                f"cannot set bars aside in {self._folder}: {error.strerror or error}; the lake is unchanged",
                hint="check permissions and free space, then run the same command again",
            ) from error
        self._tables.clear()
        self._rows = 0
