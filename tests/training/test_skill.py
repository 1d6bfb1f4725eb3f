"""The skill gate lets skill through, keeps luck to its 5 %, and the sentinel sees a leak."""

import numpy as np

from b3dist.training.skill import judge_part


def overlapping_returns(rng: np.random.Generator, size: int) -> np.ndarray:
    steps = rng.standard_t(4, size + 1) * 0.015
    return steps[:-1] + steps[1:]


def test_noise_passes_about_as_often_as_the_level_says() -> None:
    """Predictions unrelated to overlapping two-session returns beat persistence in at most 5 % of 400 draws."""
    rng = np.random.default_rng(0)
    passed = 0
    for _ in range(400):
        y_return, noise = overlapping_returns(rng, 330), rng.normal(0, 0.005, 330)
        passed += judge_part(y_return, noise, horizon=2, ic=0.0)["beats_persistence"]
    assert passed <= 20


def test_real_skill_is_recognised() -> None:
    """A prediction holding a tenth of the variance passes nearly always with 1,000 windows."""
    rng = np.random.default_rng(1)
    verdicts = []
    for _ in range(50):
        signal = rng.normal(0, 0.01, 1000)
        verdicts.append(judge_part(signal + rng.normal(0, 0.03, 1000), signal, horizon=2, ic=0.3)["beats_persistence"])
    assert np.mean(verdicts) > 0.95


def test_a_perfect_prediction_is_suspicious_and_persistence_undefined() -> None:
    """An IC above one half raises the sentinel; predicting zero has no p-value."""
    y_return = overlapping_returns(np.random.default_rng(2), 300)
    assert judge_part(y_return, y_return, horizon=2, ic=1.0)["suspicious"]
    still = judge_part(y_return, np.zeros(300), horizon=2, ic=None)
    assert still == {"p_value": None, "beats_persistence": False, "suspicious": False}
