"""Solvers of vector matching."""
