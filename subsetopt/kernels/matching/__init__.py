"""Compiled loops for mean matching."""
