"""Label sets follow their rule and look no further than the horizon."""

import numpy as np

from b3dist.config import DataConfig
from b3dist.data.features import Bars, Indicators
from b3dist.data.labels import forward_return, future_return, label_actions, signal_cluster
from b3dist.data.schema import BUY, HOLD, SELL
from tests.conftest import make_columns


def test_signal_cluster_reads_the_next_session() -> None:
    """The rule of row t is met by the indicators of row t + 1; the last row has no label."""
    indicators = Indicators(
        rsi_14=np.array([50.0, 25.0, 75.0, 25.0, 75.0]),
        macd=np.array([0.0, 1.0, 0.0, -1.0, 0.0]),
        volume_change=np.array([0.0, 0.1, -0.1, 0.1, 0.1]),
        price_momentum_5=np.array([0.0, 0.0, -0.1, 0.0, -0.1]),
    )
    assert signal_cluster(indicators).tolist() == [BUY, SELL, HOLD, HOLD, -1]


def test_forward_return_labels_moves_beyond_the_barrier() -> None:
    """A jump after quiet sessions is a buy, a fall a sell, and rows without enough history or future are unknown."""
    close = np.array([100.0, 101.0, 100.0, 101.0, 100.0, 101.0, 101.0, 140.0, 140.0, 90.0])
    actions = forward_return(close, horizon=1, multiple=1.0, window=4)
    assert actions[:4].tolist() == [-1] * 4
    assert actions[6] == BUY
    assert actions[8] == SELL
    assert actions[7] == HOLD
    assert actions[9] == -1


def test_future_return_is_aligned_to_the_row_that_sees_it() -> None:
    """Row t holds close[t + 2] / close[t] - 1."""
    returns = future_return(np.array([10.0, 11.0, 12.0, 9.0]), 2)
    np.testing.assert_allclose(returns[:2], [0.2, 9 / 11 - 1])
    assert np.isnan(returns[2:]).all()


def test_labels_read_no_row_beyond_the_horizon() -> None:
    """Changing bars after t + horizon leaves the label of t unchanged, for both label sets."""
    columns, other = make_columns(200, seed=1), make_columns(200, seed=2)
    for label_set in ("signal_cluster", "forward_return"):
        config = DataConfig(label_set=label_set)  # type: ignore[arg-type]
        mixed = {name: np.concatenate([columns[name][:150], other[name][150:]]) for name in columns}
        original, changed = (label_actions(Bars.adjusted(c, np.ones(200)), config) for c in (columns, mixed))
        np.testing.assert_array_equal(original[:148], changed[:148])
        assert (original[-2:] == -1).all()
