"""How fast ptune is beside its peers, and beside the matrix multiplications that no implementation
can do without.

    ptune bench [CASE ...] [--rounds 9] [--small] [--json FILE]

Every side of a case is a process of its own, with the same random weights and the same rows. First
all sides compute the same figures, else the case is refused. Then each does its step in turn, round
after round, while the others wait; what counts is the median of a round's ratios, since a machine
is not equally fast all the time. Peak memory is what a side's process took more during its steps
than it held before. Positions are what goes through the LM in a step: the floor's are without any
padding. There are two floors on a CPU, of the same products by two libraries; ratios are to the
lower.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import sys
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.cases import CASES
from benchmarks.side import Process
from ptune.base.progress import Progress

# of figures of float32 whose sums are taken in another order; a wrong mask or position is far
# outside
TOLERANCE = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="ptune bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help=f"which: {', '.join(CASES)}; all by default"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=9,
        help="how often each side does its step; one more to warm up",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each process")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--small",
        action="store_true",
        help="two narrow layers instead of the LMs' true shapes: shows that all runs, not how fast",
    )
    parser.add_argument("--json", type=pathlib.Path, help="write the figures there too")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.cases if name not in CASES]:
        parser.error(f"there is no case {unknown[0]}: {', '.join(CASES)}")
    results = {}
    for name in chosen.cases or CASES:
        results[name] = run(name, chosen)
        show(name, results[name])
    if chosen.json:
        about = {
            "machine": platform.processor() or platform.machine(),
            "device": chosen.device,
            "threads": chosen.threads,
            "torch": torch.__version__,
            "rounds": chosen.rounds,
            "small": chosen.small,
        }
        chosen.json.write_text(json.dumps({"about": about, "cases": results}, indent=2) + "\n")


def run(name: str, chosen: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The figures of every side of a case."""
    names = [
        side for side in CASES[name].sides if side != "floor, oneDNN" or chosen.device == "cpu"
    ]
    sides = [Process(name, side, chosen.threads, chosen.device, chosen.small) for side in names]
    try:
        compare(name, sides)
        with Progress(name, (chosen.rounds + 1) * len(sides)) as progress:
            for _ in range(chosen.rounds + 1):
                for side in sides:
                    side.step()
                    progress.advance(1)
        return {side.side: figures(side, sides) for side in sides}
    finally:
        for side in sides:
            side.close()


def compare(name: str, sides: Sequence[Process]) -> None:
    """Refuse to time sides that compute different things."""
    proofs = {side.side: proof for side in sides if (proof := side.prove()) is not None}
    reference = next(iter(proofs), None)
    for other in proofs:
        a, b = (torch.tensor(proofs[side]) for side in (reference, other))
        if a.shape != b.shape or not torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE):
            sys.exit(
                f"{name}: {reference} and {other} compute different "
                f"things:\n{proofs[reference]}\n{proofs[other]}"
            )


def figures(side: Process, sides: Sequence[Process]) -> dict[str, float]:
    """A side's median step in seconds, the first left out; its peak memory in MB; how often as fast
    as the peer it is, and how many times the lower floor its step takes."""
    result = {
        "seconds": statistics.median(side.times[1:]),
        "cpu_seconds": statistics.median(side.cpu_times[1:]),
    }
    if not side.side.startswith("floor"):
        result["memory_mb"] = side.memory() / 2**20
    if waits := sorted(side.waits()):
        for share in (50, 95, 99):
            result[f"p{share}"] = waits[min(len(waits) - 1, len(waits) * share // 100)]
    if positions := side.positions():
        result["positions"] = positions
    peer, floors = sides[1], [other.times[1:] for other in sides if other.side.startswith("floor")]
    result["times_as_fast"] = statistics.median(
        theirs / mine for mine, theirs in zip(side.times[1:], peer.times[1:])
    )
    result["times_less_cpu"] = statistics.median(
        theirs / mine for mine, theirs in zip(side.cpu_times[1:], peer.cpu_times[1:])
    )
    if floors:
        result["times_the_floor"] = statistics.median(
            mine / min(least) for mine, *least in zip(side.times[1:], *floors)
        )
    return result


def show(name: str, result: dict[str, dict[str, float]]) -> None:
    table = Table(title=f"{name}: {CASES[name].title}", title_justify="left")
    for column in (
        "",
        "ms a step",
        f"x as fast as {CASES[name].sides[1]}",
        "ms of a core",
        "x less",
        "x the floor's time",
        "positions",
        "peak MB",
        "p50, p95, p99 ms",
    ):
        table.add_column(column, justify="left" if not column else "right")
    for side, row in result.items():
        cells = [
            (1000 * row["seconds"], ".1f"),
            (row["times_as_fast"], ".2f"),
            (1000 * row["cpu_seconds"], ".0f"),
            (row["times_less_cpu"], ".2f"),
            (row.get("times_the_floor"), ".2f"),
            (row.get("positions"), "d"),
            (row.get("memory_mb"), ".0f"),
        ]
        waits = ", ".join(
            f"{1000 * row[f'p{share}']:.0f}" for share in (50, 95, 99) if "p50" in row
        )
        shown = ("" if value is None else format(value, form) for value, form in cells)
        table.add_row(side, *shown, waits)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    main()
