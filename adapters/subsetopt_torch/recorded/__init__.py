"""Recorded scores in place of a scoring pass."""
