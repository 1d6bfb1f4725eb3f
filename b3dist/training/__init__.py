"""Fit, evaluate and write one asset; plain PyTorch."""
