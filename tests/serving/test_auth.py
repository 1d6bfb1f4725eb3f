"""Where a token comes from."""

from pathlib import Path

import pytest

from b3dist.errors import ConfigError
from b3dist.serving.auth import read_token


def test_a_token_comes_from_the_file_before_the_environment(tmp_path: Path) -> None:
    """A trailing newline, as editors leave it, is no part of the token."""
    file = tmp_path / "token"
    file.write_text("from-file\n")
    assert read_token(file, {"B3DIST_TOKEN": "from-environment"}) == b"from-file"
    assert read_token(None, {"B3DIST_TOKEN": "from-environment"}) == b"from-environment"
    assert read_token(None, {}) is None


@pytest.mark.parametrize("content", ["", "\n", "two words", "a\nb", "tab\there"])
def test_a_token_that_no_header_could_carry_is_refused(tmp_path: Path, content: str) -> None:
    """An empty file must not open the endpoint, and the token itself is not repeated."""
    file = tmp_path / "token"
    file.write_text(content)
    with pytest.raises(ConfigError, match="holds no usable token") as raised:
        read_token(file, {})
    assert not content.strip() or content.strip() not in str(raised.value)


def test_a_missing_token_file_is_named(tmp_path: Path) -> None:
    """Not finding it is an error, never an endpoint without a token."""
    with pytest.raises(ConfigError, match="cannot read the token file"):
        read_token(tmp_path / "absent", {})
