"""The solvers: those of one family in its room, those of several objectives here.

A registered solver imports no other registered solver; the registry finds them by their rows.
"""
