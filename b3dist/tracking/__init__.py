"""A run in MLflow: one parent run per fleet, one child run per asset. The only package that knows MLflow."""

from b3dist.tracking.store import default_uri
from b3dist.tracking.tracker import Tracker, TrackingResult

__all__ = ["Tracker", "TrackingResult", "default_uri"]
