"""What a worker makes of an asset that cannot be trained."""

from pathlib import Path

from b3dist.config import Config
from b3dist.data.lake import Lake
from b3dist.distributed.fleet.worker import _conclude
from b3dist.training.asset import train_asset
from tests.distributed.runs import QUICK


def test_bad_data_fails_the_asset_and_says_what_to_do(zero_price_lake: Path, tmp_path: Path) -> None:
    """A price of 0 is no rule to skip by: the record names ticker, field and session, and the ways out."""
    lake, config = Lake(zero_price_lake), Config().with_overrides(QUICK)
    outcome = _conclude(lambda: train_asset(lake, "SIMA3", config, tmp_path), tmp_path / "SIMA3")
    assert outcome.skipped is outcome.trained is None
    told, _, remedy = str(outcome.error).partition("; ")
    assert told == "SIMA3's open on 2018-12-28 is 0 (1 such in all), expected a price above 0"
    assert remedy == (
        "ingest a corrected file, or end before that session with --to; b3dist check lists all such bars"
        " (impossible_bar)"
    )


def test_ended_before_the_bad_session_the_asset_can_be_trained(zero_price_lake: Path, tmp_path: Path) -> None:
    """As the record says."""
    config = Config().with_overrides([*QUICK, "data.to_session=2018-12-27"])
    outcome = _conclude(lambda: train_asset(Lake(zero_price_lake), "SIMA3", config, tmp_path), tmp_path / "SIMA3")
    assert outcome.trained is not None, outcome
