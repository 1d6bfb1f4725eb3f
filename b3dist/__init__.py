"""b3dist: retrain and judge one LSTM multi-task model for every asset of B3, on Ray."""

__version__ = "0.1.0"
