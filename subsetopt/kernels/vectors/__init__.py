"""Compiled loops for vector matching."""
