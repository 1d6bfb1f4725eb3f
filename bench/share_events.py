"""Share events found in a lake against a list of known ones: counts, then every miss, extra and wrong factor.

    python bench/share_events.py --lake LAKE --oracle share_events.csv

The oracle has ticker, ex_date, factor, mark and kind (`share` must be found, `cash` must not).
"""

import argparse
import json
import sys
from pathlib import Path

import pandas as pd

from b3dist.data.lake import Lake

TOLERANCE = 0.05
"""Relative error up to which a factor counts as right: a cash payment of the same day is in many known factors."""


def compare(found: pd.DataFrame, oracle: pd.DataFrame) -> pd.DataFrame:
    """One row per event of either side with a verdict: right, factor, missed, extra or cash."""
    both = oracle.merge(found, on=["ticker", "ex_date"], how="outer", suffixes=("", "_found"))
    share, seen = both["kind"] == "share", both["factor_found"].notna()
    both["error"] = both["factor_found"] / both["factor"] - 1
    both["verdict"] = "not found, rightly"
    both.loc[share & seen, "verdict"] = "right"
    both.loc[share & seen & (both["error"].abs() > TOLERANCE), "verdict"] = "factor"
    both.loc[share & ~seen, "verdict"] = "missed"
    both.loc[both["kind"].isna(), "verdict"] = "extra"
    both.loc[(both["kind"] == "cash") & seen, "verdict"] = "cash"
    return both


def summary(table: pd.DataFrame) -> dict[str, int]:
    """The counts that the requirement names."""
    share = table[table["kind"] == "share"]
    large = share[(share["factor"] >= 1.5) | (share["factor"] <= 0.67)]
    return {
        "share_events": len(share),
        "share_found": int(share["factor_found"].notna().sum()),
        "share_factor_within_5_percent": int((share["error"].abs() <= TOLERANCE).sum()),
        "large_events": len(large),
        "large_found": int(large["factor_found"].notna().sum()),
        "large_factor_within_5_percent": int((large["error"].abs() <= TOLERANCE).sum()),
        "cash_events": int((table["kind"] == "cash").sum()),
        "cash_reported": int((table["verdict"] == "cash").sum()),
        "others_reported": int((table["verdict"] == "extra").sum()),
    }


def main() -> None:
    """Print the table of what is not right (everything with --all) on stderr and the counts as JSON on stdout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lake", type=Path, required=True)
    parser.add_argument("--oracle", type=Path, required=True)
    parser.add_argument("--all", action="store_true", help="also the events that are right")
    options = parser.parse_args()
    oracle = pd.read_csv(options.oracle, parse_dates=["ex_date"], keep_default_na=False)
    table = compare(Lake(options.lake).events(), oracle.astype({"ex_date": "datetime64[s]"}))
    shown = table if options.all else table[table["verdict"].isin(["factor", "missed", "extra", "cash"])]
    columns = ["verdict", "ticker", "ex_date", "mark", "factor", "factor_found", "error"]
    print(shown[columns].to_string(index=False, na_rep="", float_format="{:.4g}".format), file=sys.stderr)
    print(json.dumps(summary(table)))


if __name__ == "__main__":
    main()
