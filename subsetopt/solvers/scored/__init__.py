"""Solvers of scored matching."""
