"""The endpoint, under the name by which serve/config.yaml imports it: serve.app:build."""

from b3dist.serving.app import build

__all__ = ["build"]
