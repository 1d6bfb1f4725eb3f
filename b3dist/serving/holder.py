"""What a replica serves from, and how it is exchanged: prepared aside, warmed, then swapped by one reference.

Ray Serve answers a `reconfigure` that raises with DEPLOY_FAILED and 503 from then on, so `Holder.take_over` never does:
whatever is wrong with a new release or lake, the old one serves on and `last_error` says why.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow.compute as pc

from b3dist.data.lake import Lake
from b3dist.errors import B3distError, DataError
from b3dist.release import Release, ReleaseStore
from b3dist.scoring import Scorer
from b3dist.serving.problems import without_folders
from b3dist.serving.served import Served

_LOGGER = logging.getLogger("ray.serve")  # in a replica its handlers write into Serve's log files

_NUMBERS = ("p_buy", "p_sell", "p_hold", "return_pred", "price_pred")


@dataclass(frozen=True, kw_only=True)
class Serving:
    """One release on one state of the lake, warm. A request reads it once and uses nothing else."""

    release: Release
    lake: Lake
    scorer: Scorer
    alias: str | None
    """The alias by which the release was asked for, if it was one."""
    newest_session: date
    """The lake's last exchange session."""
    since: datetime
    """When it was taken over, UTC."""


class Holder:
    """The one mutable reference of a replica."""

    def __init__(self) -> None:
        self.current: Serving | None = None
        """What is served; None until the first release is warm. Read once per batch."""
        self.last_error: str | None = None
        """Why the newest configuration could not be taken over; None once one was. For the server's own eyes."""
        self.shown_error: str | None = None
        """The same without folders, as whoever asks may read it."""
        self.taken_over = 0
        """How often something was taken over."""
        self.refused = 0
        """How often a configuration could not be."""
        self._asked: Mapping[str, Any] | None = None
        self._newest = 0
        self._counting = threading.Lock()
        self._working = threading.Lock()

    def take_over(self, user_config: Mapping[str, Any]) -> bool:
        """Serve what `user_config` names, if it can be: verified and warmed aside, then swapped by one assignment.

        Never raises. May take seconds: call it in a thread. Of calls that wait for each other only the newest counts.

        Returns:
            Whether it is served now (a fallback is not it).
        """
        with self._counting:
            self._newest += 1
            turn = self._newest
        with self._working:
            if turn != self._newest:
                return False
            try:
                self._swap(_prepared(Served.from_user_config(user_config)))
                self.last_error = self.shown_error = None
            except Exception as error:  # noqa: BLE001  a raise would end in DEPLOY_FAILED and 503 for good
                self._refuse(error)
                self.shown_error = without_folders(self.last_error or "", _folders_of(user_config))
                self._fall_back(user_config)
            self._asked = user_config
            return self.last_error is None

    def status(self) -> dict[str, Any]:
        """What is served since when, what was asked for last, and what went wrong with it; JSON values."""
        serving = self.current
        return {
            "release_id": serving.release.release_id if serving else None,
            "alias": serving.alias if serving else None,
            "lake_manifest_hash": serving.lake.manifest_hash if serving else None,
            "newest_session": serving.newest_session.isoformat() if serving else None,
            "since": serving.since.isoformat(timespec="seconds") if serving else None,
            "assets": len(serving.release.assets) if serving else 0,
            "last_error": self.last_error,
            "taken_over": self.taken_over,
            "refused": self.refused,
            "asked": self._asked,
        }

    def _swap(self, serving: Serving) -> None:
        self.current = serving
        self.taken_over += 1
        _LOGGER.info("took over release %s on lake %s", serving.release.release_id, serving.lake.manifest_hash[:12])

    def _refuse(self, error: Exception) -> None:
        self.refused += 1
        if isinstance(error, B3distError):
            self.last_error = error.message
            _LOGGER.error("not taken over: %s", error.message)
        else:
            self.last_error = f"unexpected {type(error).__name__}: {error}"
            _LOGGER.error("not taken over", exc_info=error)

    def _fall_back(self, user_config: Mapping[str, Any]) -> None:
        """Give a replica that has nothing yet the last release that was served well; the error stays to be seen."""
        if self.current is not None:
            return
        try:
            fallback = user_config.get("fallback")
            if fallback:
                self._swap(_prepared(Served.from_user_config({**user_config, "release": fallback, "alias": None})))
        except Exception:
            _LOGGER.exception("the fallback cannot be taken over either")


def _folders_of(user_config: object) -> list[str]:
    """The folders that a configuration names, whatever it is."""
    named = user_config if isinstance(user_config, Mapping) else {}
    return [folder for name in ("releases", "lake") if isinstance(folder := named.get(name), str)]


def _prepared(served: Served) -> Serving:
    """Open, verify and warm.

    Raises:
        B3distError: the release or the lake is absent, damaged or unfit for the other.
    """
    store = ReleaseStore(served.releases)
    release_id = store.resolve(served.release)
    alias = served.alias or (served.release if served.release != release_id else None)
    lake = Lake(served.lake)
    release = store.open(release_id, alias=alias)
    scorer = Scorer(release, lake, which=served.which, stale_after=served.stale_after)
    _warm(scorer, release_id)
    return Serving(
        release=release,
        lake=lake,
        scorer=scorer,
        alias=alias,
        newest_session=lake.calendar()[-1].astype(date),
        since=datetime.now(UTC),
    )


def _warm(scorer: Scorer, release_id: str) -> None:
    """Score every asset once: pages are touched, kernels chosen, and an answer that is no number found out.

    Raises:
        DataError: no asset can be scored, or one is scored with NaN or infinity.
    """
    table, skipped = scorer.score_all(None, None)
    if table.num_rows == 0:
        raise DataError(
            f"release {release_id} cannot score a single asset on this lake ({len(skipped)} skipped)",
            hint="serve the lake the release was trained on, or a newer state of it",
        )
    finite = np.logical_and.reduce([np.isfinite(table[name].to_numpy()) for name in _NUMBERS])
    if not finite.all():
        broken = pc.unique(table["ticker"].filter(~finite)).to_pylist()
        raise DataError(
            f"release {release_id} answers with NaN or infinity for {len(broken)} assets, e.g. {broken[0]}",
            hint="create the release again from a sound run",
        )
