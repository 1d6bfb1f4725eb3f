"""Records per second from a ZIP of whole-market records to lake bars: `python bench/ingest.py`; prints one JSON object.

The file is B3's own (16 sessions of January 2021, fixtures/COTAHIST_A2021_to_20210126.ZIP), repeated with dates shifted
by whole weeks. Every measurement runs in a process of its own; inflating alone and ingesting alternate, and medians of
the rounds are reported, so that their ratio means something on a busy machine too; seconds of processor time, which
neighbours disturb less, stand beside the wall clock's. pandas.read_fwf parses the first records of the
same file, with every field's column given; its time is scaled to the whole file.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from datetime import date, timedelta
from pathlib import Path

FIXTURE = Path(__file__).parents[1] / ".." / "shared" / "data" / "fixtures" / "COTAHIST_A2021_to_20210126.ZIP"
RECORD = 247
SHIFT = timedelta(days=28)
FWF_RECORDS = 20_000

INFLATE = """
import sys, time, zipfile
archive = zipfile.ZipFile(sys.argv[1])
started, busy = time.perf_counter(), time.process_time()
with archive.open(archive.infolist()[0]) as stream:
    while stream.read(1 << 20):
        pass
print('{"seconds": %f, "cpu_s": %f}' % (time.perf_counter() - started, time.process_time() - busy))
"""
INGEST = """
import json, resource, sys, time
from pathlib import Path
from b3dist.data.lake import ingest
started, busy = time.perf_counter(), time.process_time()
result = ingest([Path(sys.argv[1])], Path(sys.argv[2]))
seconds, busy = time.perf_counter() - started, time.process_time() - busy
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "cpu_s": busy, "peak_mb": peak, "bars": result.bars}))
"""
READ_FWF = """
import json, sys, time, zipfile
import pandas as pd
from b3dist.data.cotahist import FIELDS
archive = zipfile.ZipFile(sys.argv[1])
started = time.perf_counter()
with archive.open(archive.infolist()[0]) as stream:
    frame = pd.read_fwf(stream, colspecs=[(field.start, field.end) for field in FIELDS], header=None, skiprows=1,
                        nrows=int(sys.argv[2]), encoding="latin-1", names=[field.name for field in FIELDS])
print(json.dumps({"seconds": time.perf_counter() - started, "records": len(frame)}))
"""


def main() -> None:
    """Build the file, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000, help="at least so many records in the ZIP")
    parser.add_argument("--memory-records", type=int, default=4_000_000, help="size of a second file, for memory only")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fixture", type=Path, default=FIXTURE)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, large = folder / "COTAHIST_A2021.ZIP", folder / "COTAHIST_A2024.ZIP"
        records = build(options.fixture, small, at_least=options.records)
        inflating, ingesting = [], []
        for number in range(options.rounds):
            inflating.append(run(INFLATE, small))
            ingesting.append(run(INGEST, small, folder / f"lake{number}"))
        inflating.append(run(INFLATE, small))
        fwf = run(READ_FWF, small, FWF_RECORDS)
        num_large = build(options.fixture, large, at_least=options.memory_records)
        memory = run(INGEST, large, folder / "large")
        seconds, busy = middle(ingesting, "seconds"), middle(ingesting, "cpu_s")
        inflate = middle(inflating, "seconds")
        fwf_speed = fwf["records"] / fwf["seconds"]
        print(
            json.dumps(
                {
                    "records": records,
                    "zip_mb": small.stat().st_size / 1e6,
                    "bars": ingesting[0]["bars"],
                    "ingest_records_per_s": records / seconds,
                    "ingest_records_per_s_by_round": [records / round_["seconds"] for round_ in ingesting],
                    "ingest_records_per_cpu_s": records / busy,
                    "peak_mb": max(round_["peak_mb"] for round_ in ingesting),
                    "inflate_alone_records_per_s": records / inflate,
                    "inflate_alone_records_per_cpu_s": records / middle(inflating, "cpu_s"),
                    "ingest_over_inflate": inflate / seconds,
                    "read_fwf_records_per_s": fwf_speed,
                    "read_fwf_measured_on_records": fwf["records"],
                    "ingest_over_read_fwf": records / seconds / fwf_speed,
                    "large_file_records": num_large,
                    "large_file_bars": memory["bars"],
                    "large_file_records_per_s": num_large / memory["seconds"],
                    "large_file_peak_mb": memory["peak_mb"],
                    "rounds": options.rounds,
                    "cores": os.cpu_count(),
                    "load_average": os.getloadavg()[0],
                    "machine": platform.processor() or platform.machine(),
                    "python": platform.python_version(),
                }
            )
        )


def middle(rounds: list[dict[str, float]], key: str) -> float:
    """Median over the rounds."""
    return statistics.median(round_[key] for round_ in rounds)


def run(code: str, *arguments: object) -> dict[str, float]:
    """Run code in a fresh interpreter; it prints one JSON object."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def build(fixture: Path, target: Path, *, at_least: int) -> int:
    """Write a ZIP of the fixture's records repeated under shifted dates; the number of quote records in it."""
    with zipfile.ZipFile(fixture) as archive:
        text = archive.read(archive.infolist()[0])
    header, quotes = text[:RECORD], text[RECORD:-RECORD]
    sessions = sorted({quotes[at + 2 : at + 10] for at in range(0, len(quotes), RECORD)})
    repeats = -(-at_least * RECORD // len(quotes))
    total = len(quotes) // RECORD * repeats
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(f"{target.stem}.TXT", "w") as out:
        out.write(header)
        for repeat in range(repeats):
            shifted = quotes
            for session in sessions:
                shifted = shifted.replace(b"\n01" + session, b"\n01" + later(session, repeat))
            # The very first record has no line end before it.
            out.write(b"01" + later(quotes[2:10], repeat) + shifted[10:])
        out.write(b"99" + header[2:31] + b"%011d" % (total + 2) + b" " * 203 + b"\r\n")
    return total


def later(session: bytes, repeat: int) -> bytes:
    """A session's date moved by whole weeks, so that weekdays stay weekdays."""
    moved = date(int(session[:4]), int(session[4:6]), int(session[6:])) + repeat * SHIFT
    return moved.strftime("%Y%m%d").encode()


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"measured in {time.perf_counter() - started:.0f} s", file=sys.stderr)
