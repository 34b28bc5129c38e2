"""Solvers of facility location and k-center."""
