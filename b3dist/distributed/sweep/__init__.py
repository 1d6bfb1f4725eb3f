"""A hyperparameter sweep on Ray Tune: search, finalists, verdict."""
