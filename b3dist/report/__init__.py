"""A run as one self-contained page."""

from b3dist.report.page import write_report

__all__ = ["write_report"]
