"""The lake: all bars of the exchange in Parquet. `Lake` reads it, `ingest` fills it; a manifest says what counts."""

from b3dist.data.lake.ingest import IngestedFile, IngestResult, ingest
from b3dist.data.lake.reader import Lake

__all__ = ["IngestResult", "IngestedFile", "Lake", "ingest"]
