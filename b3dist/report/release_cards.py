"""The model cards of the releases that were made of a run."""

from dataclasses import dataclass
from pathlib import Path

from b3dist.errors import ReleaseError


@dataclass(frozen=True, kw_only=True)
class ReleaseCard:
    """A release of the run."""

    release_id: str
    aliases: tuple[str, ...]
    html: str
    """The card as an HTML fragment; empty where it cannot be read."""
    problem: str = ""
    """Why it cannot."""


def release_cards(releases: Path, run_id: str) -> list[ReleaseCard]:
    """The cards of a run's releases, newest first; a damaged release says so instead of failing the report."""
    from b3dist.release import ReleaseStore, card_html

    store = ReleaseStore(releases)
    try:
        infos = [info for info in store.list() if info.run_id == run_id]
    except ReleaseError as error:
        return [ReleaseCard(release_id="", aliases=(), html="", problem=error.message)]
    cards = []
    for info in infos:
        html, problem = "", ""
        try:
            html = card_html(store.card(info.release_id))
        except ReleaseError as error:
            problem = error.message
        cards.append(ReleaseCard(release_id=info.release_id, aliases=info.aliases, html=html, problem=problem))
    return cards
