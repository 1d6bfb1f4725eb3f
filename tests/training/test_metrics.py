"""Metrics equal scikit-learn's and SciPy's, and undefined ones are null."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn import metrics as sk

from b3dist.training.metrics import evaluate_part

LABELS = [0, 1, 2]


def make_part(size: int, seed: int, *, classes: int = 3, constant_prediction: bool = False) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    close, y_return = rng.uniform(5, 50, size), np.round(rng.normal(0, 0.03, size), 3)
    return {
        "y_action": rng.integers(0, classes, size),
        "action": rng.integers(0, 3, size),
        "close": close,
        "future_close": close * (1 + y_return),
        "y_return": y_return,
        "return_pred": np.full(size, 0.01) if constant_prediction else np.round(rng.normal(0, 0.01, size), 3),
        "spans_cash_ex_date": rng.random(size) < 0.1,
    }


@given(size=st.integers(2, 80), seed=st.integers(0, 10_000), classes=st.integers(1, 3))
@settings(max_examples=60)
def test_everything_equals_the_libraries(size: int, seed: int, classes: int) -> None:
    """Each number is the library's to 1e-9, absent classes included."""
    part = make_part(size, seed, classes=classes)
    found = evaluate_part(part)
    truth, predicted = part["y_action"], part["action"]
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted), abs=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns about absent classes even with zero_division given
        for average in ("macro", "weighted"):
            expected = sk.f1_score(truth, predicted, average=average, zero_division=0)
            assert found[f"{average}_f1"] == pytest.approx(expected, abs=1e-9)
        scores = sk.precision_recall_fscore_support(truth, predicted, labels=LABELS, zero_division=0)
    for index, name in enumerate(("buy", "sell", "hold")):
        for values, key in zip(scores, ("precision", "recall", "f1", "support"), strict=True):
            assert found["per_class"][name][key] == pytest.approx(values[index], abs=1e-9)
    assert found["confusion"] == sk.confusion_matrix(truth, predicted, labels=LABELS).tolist()
    price = part["close"] * (1 + part["return_pred"])
    for space, y, p in (("price", part["future_close"], price), ("return", part["y_return"], part["return_pred"])):
        errors = found[space]
        assert errors["mae"] == pytest.approx(sk.mean_absolute_error(y, p), abs=1e-9)
        assert errors["rmse"] == pytest.approx(sk.root_mean_squared_error(y, p), abs=1e-9)
        if np.ptp(y) > 0:
            assert errors["r2"] == pytest.approx(sk.r2_score(y, p), rel=1e-9, abs=1e-9)
    assert found["price"]["mape"] == pytest.approx(
        sk.mean_absolute_percentage_error(part["future_close"], price), abs=1e-9
    )
    if np.ptp(part["y_return"]) > 0 and np.ptp(part["return_pred"]) > 0:
        assert found["return"]["ic"] == pytest.approx(pearsonr(part["y_return"], part["return_pred"])[0], abs=1e-9)
        assert found["return"]["rank_ic"] == pytest.approx(
            spearmanr(part["y_return"], part["return_pred"])[0], abs=1e-9
        )


def test_baselines_are_the_best_constant_and_no_change() -> None:
    """Majority predicts the part's most frequent action; persistence predicts a return of zero."""
    part = make_part(200, 1)
    part["y_action"][:150] = 2
    baselines = evaluate_part(part)["baselines"]
    assert baselines["majority"]["accuracy"] == (part["y_action"] == 2).mean()
    rmse = np.sqrt(np.mean(part["y_return"] ** 2))
    assert baselines["persistence"]["return"]["rmse"] == pytest.approx(rmse)
    assert baselines["persistence"]["return"]["ic"] is None
    assert baselines["persistence"]["price"]["mae"] == pytest.approx(
        np.abs(part["future_close"] - part["close"]).mean()
    )


@pytest.mark.parametrize("size", [1, 2, 30])
def test_undefined_is_null_and_json_is_strict(size: int) -> None:
    """A constant prediction has no IC, one window no R²; nothing is NaN."""
    metrics = evaluate_part(make_part(size, 3, constant_prediction=True))
    json.dumps(metrics, allow_nan=False)
    assert metrics["return"]["ic"] is None
    assert (metrics["return"]["r2"] is None) == (size == 1)


def test_cash_targets_are_left_out_of_the_second_set() -> None:
    """without_cash_ex_dates is computed on the unmarked windows, and on none where all are marked."""
    part = make_part(100, 4)
    part["spans_cash_ex_date"][:] = np.arange(100) < 40
    subset = evaluate_part({name: values[40:] for name, values in part.items()})
    found = evaluate_part(part)["without_cash_ex_dates"]
    assert found["num_windows"] == 60
    assert found["return"] == subset["return"]
    part["spans_cash_ex_date"][:] = True
    assert evaluate_part(part)["without_cash_ex_dates"]["return"]["mae"] is None
