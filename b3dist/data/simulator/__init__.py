"""A B3-like market with a planted signal, as official files: what should be found is known."""

from b3dist.data.simulator.files import TRUTH, Simulation, simulate

__all__ = ["TRUTH", "Simulation", "simulate"]
