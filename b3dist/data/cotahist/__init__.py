"""B3's historical quotes (COTAHIST): 245-byte records to typed columns and back."""

from b3dist.data.cotahist.layout import FIELD, FIELDS, RECORD_LENGTH, Field
from b3dist.data.cotahist.reader import CotahistReader, iter_cotahist, read_cotahist
from b3dist.data.cotahist.source import looks_like_cotahist
from b3dist.data.cotahist.writer import write_cotahist

__all__ = [
    "FIELD",
    "FIELDS",
    "RECORD_LENGTH",
    "CotahistReader",
    "Field",
    "iter_cotahist",
    "looks_like_cotahist",
    "read_cotahist",
    "write_cotahist",
]
