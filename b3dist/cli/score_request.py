"""What `b3dist score` was asked for: read, checked against the lake before anything is scored, named in the answer."""

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from b3dist.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from b3dist.scoring.history import Span
    from b3dist.scoring.windows import Skipped

    Calendar = npt.NDArray[np.datetime64]


def parse_span(as_of: datetime | None, history: str | None, *, no_stale: bool) -> "Span | None":
    """First and last session of `FROM:TO`; None where one day is asked for, of which alone an asset can be stale.

    Raises:
        ConfigError: no two dates in order.
    """
    if history is None:
        return None
    if as_of is not None:
        raise typer.BadParameter("give --as-of or --history, not both", param_hint="--history")
    if no_stale:
        raise typer.BadParameter("a history has no stale rows: it goes with one day", param_hint="--no-stale")
    try:
        first, _, last = history.partition(":")
        span = date.fromisoformat(first.strip()), date.fromisoformat(last.strip())
    except ValueError:
        raise ConfigError(
            f"cannot read --history {history!r}: expected FROM:TO", hint="for example --history 2012-01-01:2018-12-31"
        ) from None
    if span[0] > span[1]:
        raise ConfigError(f"--history {history} ends before it begins", hint="expected FROM:TO, the earlier date first")
    return span


def check_out(out: Path) -> None:
    """Refuse a path that no file can be written at.

    Raises:
        ConfigError: it is a folder, or lies below a file.
    """
    if out.is_dir():
        raise ConfigError(
            f"--out {str(out)!r} is a folder, expected the path of a Parquet file",
            hint="for example --out scores.parquet",
        )
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir():
        raise ConfigError(
            f"--out {str(out)!r} lies below {above}, which is a file and no folder", hint="name another --out"
        )


def check_asked(calendar: "Calendar", as_of: date | None, span: "Span | None") -> None:
    """Refuse a day or a range in which the lake has no session.

    Raises:
        DataError: names the lake's first and last session.
    """
    import numpy as np

    first, last = span if span is not None else (None, as_of)
    seen = np.ones(len(calendar), dtype=bool)
    if first is not None:
        seen &= calendar >= np.datetime64(first, "D")
    if last is not None:
        seen &= calendar <= np.datetime64(last, "D")
    if not seen.any():
        raise nothing_to_score(calendar, as_of, span)


def nothing_to_score(
    calendar: "Calendar", as_of: date | None, span: "Span | None", skipped: "Sequence[Skipped]" = ()
) -> DataError:
    """The error for a question without a single row as its answer."""
    when = f"from {span[0]} to {span[1]}" if span else f"as of {as_of}" if as_of else "as of the newest session"
    reach = f"has sessions from {calendar[0]} to {calendar[-1]}" if len(calendar) else "has no session"
    why = f"; {len(skipped)} assets were skipped, {skipped[0].ticker}: {skipped[0].reason}" if skipped else ""
    return DataError(
        f"there is nothing to score {when}: the lake {reach}{why}",
        hint="ask for another day, range or asset, or ingest the files it takes",
    )


def describe_asked(calendar: "Calendar", as_of: date | None, span: "Span | None") -> dict[str, Any]:
    """What was scored, for the answer: as_of (the session that a day came to mean), history, note (or null)."""
    import numpy as np

    newest, last = calendar[-1].astype(date), span[1] if span is not None else as_of
    note = None
    if last is not None and last > newest:
        note = f"{last} is past the lake's newest session, {newest}"
    if span is not None:
        return {"as_of": None, "history": [span[0].isoformat(), span[1].isoformat()], "note": note}
    session = calendar[-1] if as_of is None else calendar[calendar <= np.datetime64(as_of, "D")][-1]
    return {"as_of": str(session), "history": None, "note": note}
