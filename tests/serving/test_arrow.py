"""Whatever comes as an Arrow stream, the answer is 200 or 4xx, and the process lives."""

import random
import struct
import tracemalloc
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from starlette.testclient import TestClient

from b3dist.data.features import INPUT_COLUMNS
from b3dist.serving.holder import Holder
from b3dist.serving.problems import ARROW
from tests.serving.bars import columns_of, stream_of, table_of


def send(client: TestClient, body: bytes) -> Any:
    """The answer to a stream."""
    return client.post("/v1/score?adjusted=false", content=body, headers={"Content-Type": ARROW})


@pytest.fixture(scope="module")
def table(holder: Holder) -> pa.Table:
    """A sound table of two assets."""
    return table_of({ticker: columns_of(holder, ticker) for ticker in ("SIMA3", "SIMC3")})


def test_damaged_streams_are_4xx(client: TestClient, table: pa.Table) -> None:
    """Cut anywhere, bytes flipped and lengths blown up, many of each."""
    rng = random.Random(20181228)
    sound = stream_of(table, rows=100)
    dictionary = stream_of(table.set_column(0, "ticker", table["ticker"].dictionary_encode()), rows=150)
    assert send(client, sound).status_code == 200
    for case in range(400):
        body = bytearray(sound if case % 2 else dictionary)
        kind = case % 4
        if kind < 2:
            del body[rng.randrange(len(body)) :]
        for _ in range(rng.randint(1, 8) if kind else 0):
            if not body:
                break
            # Headers are where lies do harm: half of the damage goes into the first kilobyte.
            place = rng.randrange(min(len(body), 1024) if rng.random() < 0.5 else len(body))
            body[place] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256)))
        if kind == 3 and len(body) > 16:
            struct.pack_into("<q", body, rng.randrange(len(body) - 8), rng.choice((-1, 2**31 - 1, 2**40, 2**62)))
        status = send(client, bytes(body)).status_code
        assert status == 200 or 400 <= status < 500, case
    assert send(client, sound).status_code == 200


def test_streams_that_are_none_are_422(client: TestClient) -> None:
    """Nothing, text, JSON, a file in the other format, an end without a beginning."""
    for body in (b"", b"hello", b"{}", b"ARROW1\0\0", b"\xff\xff\xff\xff\0\0\0\0", b"\xff" * 64, bytes(64)):
        response = send(client, body)
        assert response.status_code == 422
        assert "Arrow" in response.json()["error"]


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_compressed_buffers_are_refused(client: TestClient, table: pa.Table, codec: str) -> None:
    """Before anything is allocated for what they claim to become."""
    bomb = table.slice(0, 1).take(pa.array(np.zeros(1_000_000, dtype=np.int64)))
    for sent in (table, bomb, table.set_column(0, "ticker", table["ticker"].dictionary_encode())):
        body = stream_of(sent, compression=codec)
        assert len(body) < 16 * 2**20
        response = send(client, body)
        assert response.status_code == 422
        assert "compressed" in response.json()["error"]


def test_columns_of_other_types_are_422_and_named(client: TestClient, table: pa.Table) -> None:
    """Types that hold no number, date or string, or hold nulls."""

    def changed(name: str, values: pa.Array) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, values)

    rows = table.num_rows
    text, nulls = pa.array(["1"] * rows), pa.nulls(rows)
    holes = pa.array([1.0] * (rows - 1) + [None])
    cases = [
        ("close", text), ("close", nulls), ("close", holes), ("close", pa.array([[1.0]] * rows)),
        ("close", pa.array([True] * rows)), ("close", pa.array([{"x": 1.0}] * rows)),
        ("session", pa.array([17000] * rows)), ("session", text), ("session", nulls),
        ("session", pa.array([2**31 - 1] * rows, pa.int32()).cast(pa.date32())),
        ("session", pa.array([2**62] * rows, pa.timestamp("s"))),
        ("ticker", pa.array([7] * rows)), ("ticker", nulls), ("ticker", pa.array([b"SIMA3"] * rows)),
        ("ticker", pa.array(["SIMA3", None] * (rows // 2)).dictionary_encode()),
        ("ticker", pa.array(["A" * 33] * rows)), ("ticker", pa.array([""] * rows)),
    ]  # fmt: skip
    for name, values in cases:
        response = send(client, stream_of(changed(name, values)))
        assert response.status_code == 422, (name, values.type)
        error = response.json()
        assert error.get("field") == name or name in error["error"]


def test_wrong_sets_of_columns_are_422(client: TestClient, table: pa.Table) -> None:
    """A missing, an unknown and a repeated column, no column, no row."""
    repeated = pa.Table.from_arrays([*table.columns, table["close"]], names=[*table.column_names, "close"])
    for sent in (table.drop_columns("low"), table.append_column("x", table["low"]), repeated, table.select([])):
        assert send(client, stream_of(sent)).status_code == 422
    assert send(client, stream_of(table.slice(0, 0))).status_code == 422


def test_more_than_the_limits_is_422(client: TestClient, table: pa.Table) -> None:
    """Bars of one ticker, tickers and messages."""
    many_bars = table.slice(0, 300).take(pa.array(np.arange(5_001) % 300))
    many_tickers = table.slice(0, 1).take(pa.array(np.zeros(2_001, dtype=np.int64)))
    names = pa.array([f"T{number}" for number in range(2_001)])
    for sent in (many_bars, many_tickers.set_column(0, "ticker", names)):
        response = send(client, stream_of(sent))
        assert (response.status_code, response.json()["field"]) == (422, "ticker")
    one_row_each = table.take(pa.array(np.arange(10_001) % 600))
    response = send(client, stream_of(one_row_each, rows=1))
    assert "10000 messages" in response.json()["error"]


@pytest.mark.parametrize(("rows", "length"), [(1_000, 1_000), (400_000, 6_000), (400_000, 5_000_000)])
def test_a_long_ticker_times_many_rows_is_422_and_allocates_little(client: TestClient, rows: int, length: int) -> None:
    """As text of equal widths, or out of a dictionary, these would be gigabytes."""
    number = pa.array(np.ones(rows, dtype=np.int8))
    columns = dict.fromkeys(INPUT_COLUMNS, number)
    columns["session"] = pa.array(np.zeros(rows, dtype=np.int32)).cast(pa.date32())
    encoded = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int8)), pa.array(["x" * length]))
    for tickers in (pa.array(["x" * length] + ["A"] * (rows - 1)), encoded):
        body = stream_of(pa.table({"ticker": tickers, **columns}))
        tracemalloc.start()
        response = send(client, body)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (response.status_code, response.json()["field"]) == (422, "ticker")
        assert peak < 4 * len(body) + 2**20


def test_a_ticker_is_compared_to_its_last_byte(client: TestClient, holder: Holder) -> None:
    """A zero byte at the end belongs to it."""
    assert send(client, stream_of(table_of({"SIMA3\0": columns_of(holder, "SIMA3")}))).status_code == 404


def test_dictionaries_that_are_odd(client: TestClient, table: pa.Table) -> None:
    """A null among the values is refused and named; a ticker named twice is one ticker."""

    def encoded(values: list[str | None]) -> pa.Table:
        codes = pa.array(np.arange(table.num_rows) % 2, pa.int8())
        return table.slice(0, 300).set_column(
            0, "ticker", pa.DictionaryArray.from_arrays(codes.slice(0, 300), pa.array(values))
        )

    response = send(client, stream_of(encoded(["SIMA3", None])))
    assert (response.status_code, response.json()["field"]) == (422, "ticker")
    assert "ticker is null" in response.json()["error"]
    unused = ["SIMA3", "SIMA3", *(f"T{number}" for number in range(2_000))]
    response = send(client, stream_of(encoded(unused)))
    assert (response.status_code, response.json()["field"]) == (422, "ticker")
    response = send(client, stream_of(encoded(["SIMA3", "SIMA3"])))
    assert [row["ticker"] for row in response.json()["rows"]] == ["SIMA3"]


def test_a_time_of_day_is_422_and_midnight_is_a_session(client: TestClient, table: pa.Table) -> None:
    """By the clock of the column's own zone."""
    dates = table["session"].cast(pa.timestamp("s")).combine_chunks()
    zone = "America/Sao_Paulo"
    noon = pc.add(dates, pa.scalar(12 * 3600, pa.duration("s")))
    local = pc.assume_timezone(dates, zone, nonexistent="latest")
    for sessions, status in ((dates, 200), (local, 200), (noon, 422), (dates.cast(pa.timestamp("s", zone)), 422)):
        response = send(client, stream_of(table.set_column(table.column_names.index("session"), "session", sessions)))
        assert response.status_code == status, response.text
        if status == 422:
            assert (response.json()["field"], response.json()["row"]) == ("session", 0)
            assert "time of day" in response.json()["error"]
