"""Fleets of assets on Ray."""
