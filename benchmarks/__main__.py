"""The command line of the benchmarks."""

from __future__ import annotations

import sys

import typer

from benchmarks.commands import (
    backends,
    cards,
    coverage,
    designs,
    exactness,
    firstuse,
    fuzz,
    gradients,
    gradnorms,
    latency,
    ledger,
    many,
    overrun,
    plans,
    proof,
    proxies,
    report,
    sampling,
    scored,
    solvers,
    streaming,
    vectors,
)
from subsetopt.errors import SubsetOptError

app = typer.Typer(
    help="Measure subsetopt: speed against quality, proofs, limits, and a fuzzer.",
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _command in (
    ("solvers", solvers.solvers),
    ("latency", latency.latency),
    ("proof", proof.proof),
    ("backends", backends.backends),
    ("overrun", overrun.overrun),
    ("many", many.many),
    ("exactness", exactness.exactness),
    ("designs", designs.designs),
    ("scored", scored.scored),
    ("vectors", vectors.vectors),
    ("coverage", coverage.coverage),
    ("fuzz", fuzz.fuzz),
    ("firstuse", firstuse.firstuse),
    ("gradients", gradients.gradients),
    ("gradnorms", gradnorms.gradnorms),
    ("sampling", sampling.sampling),
    ("plans", plans.plans),
    ("ledger", ledger.ledger),
    ("streaming", streaming.streaming),
    ("cards", cards.cards),
    ("proxy", proxies.proxy),
    ("report", report.report),
):
    app.command(_name)(_command)


def main() -> None:
    """Run a command; a mistake in what was asked is one line on stderr."""
    try:
        app()
    except SubsetOptError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
