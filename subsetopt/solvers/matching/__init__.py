"""Solvers of mean matching."""
