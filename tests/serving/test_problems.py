"""What of an error whoever asks may read."""

import os
from pathlib import Path

import pytest

from b3dist.serving.problems import without_folders


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/srv/my models/releases/R/weights.pt has sha256 1", "releases/R/weights.pt has sha256 1"),
        ("the lake /data/lake has changed: /data/lake/bars/x", "the lake lake has changed: lake/bars/x"),
        ("cannot read '/etc/b3dist/token': denied (/proc/1)", "cannot read 'token': denied (1)"),
        ("there is no release 'none' in /srv/my models/releases", "there is no release 'none' in releases"),
        ("1/2 of the assets, GET /v1, https://b3.com.br/x and s3://b/c", None),
        ("release R answers with NaN or infinity for 1 assets, e.g. SIMA3", None),
    ],
)
def test_paths_are_shown_by_their_last_names(text: str, shown: str | None) -> None:
    """Words that only look a little like paths stay as they are."""
    expected = text.replace("/v1", "v1") if shown is None else shown
    assert without_folders(text, ["/srv/my models/releases", "/data/lake", "", "\0"]) == expected


def test_relative_and_linked_folders_and_variables_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the deployment names them, as the system resolves them, and as the environment fills them in."""
    (tmp_path / "real place").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real place")
    monkeypatch.setenv("B3DIST_TEST_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for named in (str(tmp_path / "link"), "$B3DIST_TEST_HOME/link", "./link/../link"):
        for written in (tmp_path / "real place" / "x", Path(os.path.expandvars(named)) / "x"):
            shown = without_folders(f"{written} is damaged", [named])
            assert str(tmp_path) not in shown
            assert shown.endswith("/x is damaged")
