"""What an endpoint serves from, for tests: a lake whose last year can be ingested later, and two releases of it."""

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from b3dist.data.lake import ingest
from b3dist.data.simulator import simulate
from b3dist.release import Release
from b3dist.release.aliases import locked, read_aliases, write_aliases
from b3dist.release.seal import read_manifest
from tests.release.releases import make_release, seeded


@dataclass(frozen=True)
class Desk:
    """A folder with a lake and releases."""

    lake: Path
    releases: Path
    first: Release
    second: Release
    """The same assets with other weights."""
    newest_year: Path
    """A COTAHIST file that the lake has not seen yet."""

    def user_config(self, release: str | None = None, **changes: Any) -> dict[str, Any]:
        """What the deployment is configured with: the first release unless another is named."""
        config = {"releases": str(self.releases), "lake": str(self.lake), "release": release or self.first.release_id}
        return {**config, **changes}

    def ingest_newest_year(self) -> None:
        """Let the lake grow by 2018."""
        ingest([self.newest_year], self.lake)

    def flip_a_byte(self, release_id: str) -> None:
        """Damage a release's weights; a second time, repair them."""
        weights = self.releases / release_id / "weights.pt"
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.chmod(0o644)
        weights.write_bytes(bytes(content))

    def copied_to(self, folder: Path) -> "Desk":
        """The same in another folder, for a test that changes it."""
        shutil.copytree(self.lake.parent, folder)
        return dataclasses.replace(self, lake=folder / "lake", releases=folder / "releases")

    def promote(self, release_id: str) -> None:
        """Make a release champion."""
        _, seal = read_manifest(self.releases / release_id)
        with locked(self.releases):
            write_aliases(self.releases, read_aliases(self.releases).pointing_to("champion", release_id, seal))

    def roll_back(self) -> None:
        """Make the champion before it champion again."""
        with locked(self.releases):
            write_aliases(self.releases, read_aliases(self.releases).rolled_back("champion"))


def make_desk(folder: Path, *, assets: int = 6) -> Desk:
    """Sessions of 2015 to 2017 in the lake, 2018 beside it; two releases trained in seconds."""
    simulate(folder / "files", assets=assets, sessions=800, seed=7)
    *earlier, newest = sorted((folder / "files").glob("*.[TZ]*"))
    ingest(earlier, folder / "lake")
    first, second = (make_release(folder / "lake", folder, config=seeded(seed)) for seed in (1, 2))
    return Desk(lake=folder / "lake", releases=folder / "releases", first=first, second=second, newest_year=newest)
