"""Compiled loops for facility location and k-center."""
