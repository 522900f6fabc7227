"""Runs of constrained VAEs as labelled datasets, and every figure of Taming VAEs from one command."""

__all__ = ["__version__"]

__version__ = "0.1.0"
