"""What a selection is to be good at: one family of objectives per file."""

from subsetopt.objectives.base import Objective, Sense
from subsetopt.objectives.linear import TopScores
from subsetopt.objectives.mean_matching import MeanMatching

__all__ = ["MeanMatching", "Objective", "Sense", "TopScores"]
