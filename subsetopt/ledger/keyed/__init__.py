"""Ids of any kind as keys, and records as their values."""
