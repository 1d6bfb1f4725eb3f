"""Choosing hyperparameters: what is searched, how a trial is judged, what counts as better. No Ray."""
