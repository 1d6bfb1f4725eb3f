"""The card's network and its losses."""
