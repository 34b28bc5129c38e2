"""Compiled inner loops. Each has a plain NumPy twin in ``reference`` that the tests compare."""
