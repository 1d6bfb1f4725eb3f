"""How long what is left will take, by the pace so far."""

import time


class TimeLeft:
    """The pace of a stage in this invocation; what an earlier one had done counts as done, not as fast."""

    def __init__(self) -> None:
        self._stage: str | None = None
        self._began = 0.0
        self._done_before = 0

    def seconds(self, stage: str, done: int, total: int | None, *, now: float | None = None) -> float | None:
        """Seconds left of a stage; None until something of it was done.

        Args:
            stage: its name; a new one begins a new pace.
            done: of it, so far.
            total: of it; None where unknown.
            now: seconds of a clock that does not jump.
        """
        now = time.monotonic() if now is None else now
        if stage != self._stage:
            self._stage, self._began, self._done_before = stage, now, done
        fresh = done - self._done_before
        if total is None or fresh <= 0:
            return None
        return (now - self._began) / fresh * max(0, total - done)


def clock(seconds: float) -> str:
    """`2:05`, or `1:02:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
