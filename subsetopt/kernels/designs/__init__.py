"""Compiled loops for sampling designs."""
