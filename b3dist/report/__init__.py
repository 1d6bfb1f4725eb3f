"""A run as one self-contained page."""

from b3dist.report.page import write_report
from b3dist.report.run_record import write_note

__all__ = ["write_note", "write_report"]
