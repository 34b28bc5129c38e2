"""What a selection is to be good at: one family of objectives per file."""

from subsetopt.objectives.base import Objective, Sense
from subsetopt.objectives.coverage import FacilityLocation, KCenter
from subsetopt.objectives.linear import TopScores
from subsetopt.objectives.mean_matching import MeanMatching
from subsetopt.objectives.sampling_design import SamplingDesign
from subsetopt.objectives.scored_matching import ScoredMatching
from subsetopt.objectives.vector_matching import VectorMatching
from subsetopt.objectives.weighted_scores import WeightedScores

__all__ = [
    "FacilityLocation",
    "KCenter",
    "MeanMatching",
    "Objective",
    "SamplingDesign",
    "ScoredMatching",
    "Sense",
    "TopScores",
    "VectorMatching",
    "WeightedScores",
]
