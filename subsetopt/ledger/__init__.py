"""Recorded forward passes: one record of constant size per instance, in a file or on a server.

What a model said of an instance when it served it, or when it last trained on it, stands for the
scoring pass. The media differ in where records lie and in which ids they take; what they promise is
one contract.
"""

from subsetopt.ledger.front import Ledger
from subsetopt.ledger.records import Chunk, LedgerStats, LedgerWarning, Records

__all__ = ["Chunk", "Ledger", "LedgerStats", "LedgerWarning", "Records"]
