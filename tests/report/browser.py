"""A page as a real browser shows it."""

import shutil
import subprocess
from pathlib import Path

import pytest

_SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    *("--virtual-time-budget=10000", "--enable-logging=stderr", "--dump-dom"),
)


def dom_of(page: Path, *, fragment: str = "", profile: Path) -> str:
    """The document after the page's scripts have run without an error; skips the test where no browser is."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine")
    command = [browser, *_SWITCHES, f"--user-data-dir={profile}", f"{page.as_uri()}{fragment}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout
