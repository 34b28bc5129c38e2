"""The built-in solvers, one row each: every table of solvers derives from here."""

from __future__ import annotations

from subsetopt.solvers.spec import CONSTRAINTS, FEATURES, Limit, SolverSpec

__all__ = ["BUILTIN", "HIGHS_LIMITS", "PROGRAM_LIMITS"]

_ALL = FEATURES
_MIP = ("MeanMatching", "TopScores")
_LINEAR = (*_MIP, "ScoredMatching")
_UNIFORM = ("MeanMatching", "VectorMatching[uniform]")
_COVERAGE = ("FacilityLocation", "KCenter")
_PROGRAMS = (*_LINEAR, "VectorMatching[uniform]", *_COVERAGE)
_FW = CONSTRAINTS | {"time_limit", "seed", "bound"}
_LINEAR_FW = "Lacoste-Julien & Jaggi, NeurIPS 2015"
_OBTF = "Dong et al., One Backward from Ten Forward, eq. 5"
_ADASELECTION = "Zhang et al., AdaSelection, section 3.1"

# Beyond these sizes a mixed-integer backend takes too long to build and to stop a model for a time
# limit to hold within 50 ms.
PROGRAM_LIMITS = (
    Limit(
        ("VectorMatching",),
        "numbers",
        25_000,
        "mixed-integer backends take vectors of at most {most:,} numbers in all, got {n:,} x "
        "{d:,}; use 'swap' or 'omp'",
    ),
    Limit(
        ("FacilityLocation",),
        "samples",
        100,
        "mixed-integer backends take FacilityLocation of at most {most} samples (every pair is a "
        "variable), got n = {n:,}; use 'lazy-greedy'",
    ),
    Limit(
        ("KCenter",),
        "samples",
        300,
        "mixed-integer backends take KCenter of at most {most} samples, got n = {n:,}; use "
        "'farthest-first'",
    ),
)
# HiGHS looks at the clock too seldom: it overran limits by up to 0.09 s with 1,500 candidates, by
# 1.1 s with 4,096, by 26 s with 16,384.
HIGHS_LIMITS = (
    *PROGRAM_LIMITS,
    Limit(
        _LINEAR,
        "candidates",
        1_100,
        "HIGHS keeps a time limit up to {most:,} candidates to choose from, got {count:,}; with "
        "more it may be seconds late. Use 'auto', 'cpsat' or 'gurobi', or leave time_limit out for "
        "its node limit (max_iterations)",
        timed=True,
    ),
)

BUILTIN = (
    SolverSpec(
        "swap",
        "subsetopt.solvers.swap:Swap",
        _UNIFORM,
        _ALL,
        requires=("numba",),
        guarantee="anytime",
        reference=_OBTF,
        summary="local search by swaps, with lattice and interval bounds",
    ),
    SolverSpec(
        "exact",
        "subsetopt.solvers.matching.exact:Exact",
        ("MeanMatching",),
        _ALL,
        requires=("numba",),
        guarantee="exact",
        reference="Horowitz & Sahni, J. ACM 1974; " + _OBTF,
        summary="branch and bound, bitset dynamic program, meet in the middle",
    ),
    SolverSpec(
        "exhaustive",
        "subsetopt.solvers.exhaustive:Exhaustive",
        (*_LINEAR, "VectorMatching", "FacilityLocation", "KCenter"),
        _ALL - {"seed"},
        guarantee="exact",
        summary="every subset in turn; the oracle for tiny n",
        requires=("numba",),
    ),
    SolverSpec(
        "gurobi",
        "subsetopt.solvers.mip.gurobi_:Gurobi",
        (*_LINEAR, "VectorMatching", *_COVERAGE),
        _ALL,
        requires=("gurobipy",),
        extra="gurobi",
        guarantee="exact",
        reference="Gurobi Optimizer reference manual",
        summary="mixed-integer program; the free license takes 1,999 variables, 200 in squares",
        limits=PROGRAM_LIMITS,
    ),
    SolverSpec(
        "cpsat",
        "subsetopt.solvers.mip.cpsat_:CPSat",
        _PROGRAMS,
        _ALL,
        requires=("ortools",),
        extra="ortools",
        guarantee="exact",
        reference="Perron & Furnon, OR-Tools CP-SAT",
        summary="constraint programming on values scaled to integers",
        limits=PROGRAM_LIMITS,
    ),
    SolverSpec(
        "scip",
        "subsetopt.solvers.mip.mathopt_:Scip",
        _PROGRAMS,
        _ALL,
        requires=("ortools",),
        extra="ortools",
        guarantee="exact",
        reference="Bolusani et al., The SCIP Optimization Suite 9.0",
        summary="mixed-integer program through OR-Tools",
        limits=PROGRAM_LIMITS,
    ),
    SolverSpec(
        "highs",
        "subsetopt.solvers.mip.mathopt_:Highs",
        _PROGRAMS,
        _ALL,
        requires=("ortools",),
        extra="ortools",
        guarantee="exact",
        reference="Huangfu & Hall, Math. Prog. Comp. 2018",
        summary="mixed-integer program through OR-Tools",
        limits=HIGHS_LIMITS,
    ),
    SolverSpec(
        "frank-wolfe",
        "subsetopt.solvers.frank_wolfe:FrankWolfe",
        ("MeanMatching", "VectorMatching"),
        _FW,
        requires=("numba",),
        reference="Jaggi, ICML 2013; Campbell & Broderick, JMLR 2019; " + _OBTF,
        summary="Frank-Wolfe on the relaxation, rounding, swap polish or refit",
    ),
    SolverSpec(
        "away-frank-wolfe",
        "subsetopt.solvers.frank_wolfe:AwayFrankWolfe",
        ("MeanMatching", "VectorMatching"),
        _FW,
        requires=("numba",),
        reference=_LINEAR_FW,
        summary="Frank-Wolfe with away steps: the gap falls at a geometric rate",
    ),
    SolverSpec(
        "pairwise-frank-wolfe",
        "subsetopt.solvers.frank_wolfe:PairwiseFrankWolfe",
        ("MeanMatching", "VectorMatching"),
        _FW,
        requires=("numba",),
        reference=_LINEAR_FW,
        summary="Frank-Wolfe with pairwise steps: geometric, and sparse",
    ),
    SolverSpec(
        "herding",
        "subsetopt.solvers.vectors.herding:Herding",
        ("VectorMatching[uniform]",),
        CONSTRAINTS | {"time_limit"},
        reference="Welling, ICML 2009; Chen, Welling & Smola, UAI 2010",
        summary="one sample at a time, along what is still owed to the mean",
    ),
    SolverSpec(
        "omp",
        "subsetopt.solvers.vectors.omp:OrthogonalMatchingPursuit",
        ("VectorMatching[nonnegative]",),
        CONSTRAINTS | {"time_limit", "bound"},
        requires=("numba",),
        guarantee="anytime",
        reference="Killamsetty et al., ICML 2021; Lawson & Hanson 1974",
        summary="the vector nearest in angle, nonnegative refit; proves the case k >= rank",
    ),
    SolverSpec(
        "giga",
        "subsetopt.solvers.vectors.giga:GeodesicAscent",
        ("VectorMatching[nonnegative]",),
        CONSTRAINTS | {"time_limit"},
        requires=("numba",),
        reference="Campbell & Broderick, ICML 2018",
        summary="greedy geodesic ascent on the sphere",
    ),
    SolverSpec(
        "lagrangian",
        "subsetopt.solvers.scored.lagrangian:Lagrangian",
        ("ScoredMatching",),
        _ALL,
        requires=("numba",),
        guarantee="anytime",
        reference="Fisher, Management Science 1981",
        summary="dual bound, cheapest exchanges around its optimum, swap repair",
    ),
    SolverSpec(
        "greedy",
        "subsetopt.solvers.greedy:Greedy",
        (*_MIP, "FacilityLocation"),
        CONSTRAINTS | {"time_limit", "bound"},
        summary="one sample at a time, the best completion of the sum so far",
        requires=("numba",),
    ),
    SolverSpec(
        "lazy-greedy",
        "subsetopt.solvers.coverage.greedy:LazyGreedy",
        ("FacilityLocation",),
        CONSTRAINTS | {"time_limit", "bound"},
        requires=("numba",),
        reference="Minoux, Optimization Techniques 1978",
        summary="the greedy's choice, with far fewer gains computed; 1 - 1/e of the optimum",
    ),
    SolverSpec(
        "stochastic-greedy",
        "subsetopt.solvers.coverage.greedy:StochasticGreedy",
        ("FacilityLocation",),
        CONSTRAINTS | {"time_limit", "seed", "bound"},
        requires=("numba",),
        reference="Mirzasoleiman et al., Lazier than lazy greedy, AAAI 2015",
        summary="the best of a random sample at every step; 1 - 1/e - epsilon in expectation",
    ),
    SolverSpec(
        "farthest-first",
        "subsetopt.solvers.coverage.farthest_first:FarthestFirst",
        ("KCenter",),
        CONSTRAINTS | {"time_limit", "seed", "bound"},
        requires=("numba",),
        reference="Gonzalez, Theor. Comput. Sci. 1985",
        summary="always the farthest sample; at most twice the optimal radius",
    ),
    SolverSpec(
        "topk",
        "subsetopt.solvers.topk:TopK",
        _MIP,
        {"include", "exclude", "quotas", "at_most", "bound"},
        guarantee="heuristic",
        summary="the largest values; exact for TopScores, the big-loss heuristic for matching",
    ),
    SolverSpec(
        "random",
        "subsetopt.solvers.random_:Random",
        (*_MIP, "VectorMatching"),
        CONSTRAINTS | {"seed"},
        summary="a random feasible subset; the baseline of every comparison",
    ),
    SolverSpec(
        "half-and-half",
        "subsetopt.solvers.matching.coresets:HalfAndHalf",
        ("MeanMatching",),
        {"include", "exclude", "at_most"},
        reference=_ADASELECTION,
        summary="half the largest, half the smallest losses (coreset approximation 1)",
    ),
    SolverSpec(
        "nearest-mean",
        "subsetopt.solvers.matching.coresets:NearestMean",
        ("MeanMatching",),
        {"include", "exclude", "quotas", "at_most"},
        reference=_ADASELECTION,
        summary="the losses nearest the mean (coreset approximation 2)",
    ),
    SolverSpec(
        "multinomial",
        "subsetopt.solvers.designs:Multinomial",
        ("SamplingDesign[with_replacement]",),
        {"seed"},
        requires=("numba",),
        reference="Hansen & Hurwitz, Ann. Math. Stat. 1943",
        summary="independent draws with replacement (importance sampling)",
    ),
    SolverSpec(
        "systematic",
        "subsetopt.solvers.designs:Systematic",
        ("SamplingDesign[without_replacement]",),
        {"seed"},
        requires=("numba",),
        reference="Madow, Ann. Math. Stat. 1949",
        summary="equidistant points on the probabilities laid end to end",
    ),
    SolverSpec(
        "cube",
        "subsetopt.solvers.designs:Cube",
        ("SamplingDesign[without_replacement]",),
        {"seed", "time_limit"},
        requires=("numba",),
        reference="Deville & Tille, Biometrika 2004; Chauvet & Tille, Comput. Stat. 2006",
        summary="balanced sampling: prescribed probabilities, totals of the balance met",
    ),
)
