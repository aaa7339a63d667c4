"""Answers a million rows from Parquet files, kills the run in the middle, and goes on with it.

    python scripts/million_rows.py FOLDER [ROWS]

In the folder, ``rows`` gets ten Parquet files of countries drawn from the examples, each row with
its number; they are answered by the prompt for continents that comes with ptune, on the built-in
LM. ``whole`` is a run that was not stopped. ``killed`` is one that gets ``kill -9`` twice, at random
moments while files are written, and goes on with ``--resume``. Printed are the rows a second of the
whole run, its memory after the first file of answers and at most, and whether both runs have each
row once, in order, and the same bytes, and the answers that each country has by itself. The exit
code is 1 where they have not.
"""

import csv
import hashlib
import pathlib
import random
import subprocess
import sys
import time

import psutil

ROOT = pathlib.Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "continents"
PROMPT = ROOT / "src" / "ptune" / "builtin" / "prompts" / "continents"
ROWS, FILES, KILLS = 1_000_000, 10, 2
SECONDS = 2  # a run is killed so long at most after the file that its turn comes at


def countries() -> list[str]:
    """The countries of the examples."""
    names = []
    for part in ("train", "dev", "test"):
        with (EXAMPLES / f"{part}.csv").open(encoding="utf-8") as stream:
            names += [row["country"] for row in csv.DictReader(stream)]
    return names


def make_rows(folder: pathlib.Path, count: int, files: int = FILES) -> None:
    """Write the rows, as many into each file."""
    import pyarrow
    from pyarrow import parquet

    folder.mkdir(parents=True)
    names = countries()
    draw = random.Random(0)
    for number in range(files):
        ids = range(count * number // files, count * (number + 1) // files)
        drawn = [draw.choice(names) for _ in ids]
        table = pyarrow.table({"id": pyarrow.array(ids, pyarrow.int32()), "country": drawn})
        parquet.write_table(table, folder / f"rows-{number}.parquet")


class Answered:
    """A run of ptune predict, with how long it took and how much memory it had.

    Attributes:
        memory: of each look at the process the files of answers that there were, and its MiB.
        seconds, cpu: of all its processes; those of the CPU up to the last look at each.
    """

    def __init__(self, folder: pathlib.Path, out: str, kills: list[int], shard_rows: int | None):
        self.out = folder / out
        self.memory: list[tuple[int, float]] = []
        self.cpu, began = 0.0, time.monotonic()
        order = [sys.executable, "-m", "ptune", "predict", PROMPT, "--data", folder / "rows"]
        order += ["--out", self.out, "--device", "cpu"]
        order += ["--shard-rows", str(shard_rows)] if shard_rows else []
        with (folder / f"{out}.log").open("w") as log:
            for kill_at in kills:
                assert self._run(order, log, kill_at) != 0, "it ended before it was killed"
                order = [*order, *(["--resume"] if "--resume" not in order else [])]
            assert self._run(order, log) == 0, f"see {log.name}"
        self.seconds = time.monotonic() - began

    def _run(self, order: list, log: object, kill_at: int | None = None) -> int:
        """Run it, up to a moment behind that file of answers; return its exit code."""
        process = subprocess.Popen(order, stdout=log, stderr=log)  # type: ignore[call-overload]
        watched, cpu = psutil.Process(process.pid), 0.0
        while process.poll() is None:
            files = len(list(self.out.glob("part-*")))
            try:
                self.memory.append((files, watched.memory_info().rss / 2**20))
                cpu = sum(watched.cpu_times()[:2])
            except psutil.Error:
                break
            if kill_at is not None and files >= kill_at:
                time.sleep(random.uniform(0, SECONDS))
                process.kill()
            time.sleep(0.1)
        self.cpu += cpu
        return process.wait()


def answers(out: pathlib.Path) -> tuple[list[int], str, set[tuple[str, str]]]:
    """The numbers of the rows that are answered, in the order of the files; a hash of all files'
    bytes; and each country with its answers."""
    from pyarrow import parquet

    ids: list[int] = []
    given: set[tuple[str, str]] = set()
    content = hashlib.sha256()
    for path in sorted(out.glob("part-*.parquet")):
        table = parquet.read_table(path)
        assert table["ptune_prediction"].null_count == 0
        ids += table["id"].to_pylist()
        given |= set(zip(table["country"].to_pylist(), table["ptune_prediction"].to_pylist()))
        content.update(path.name.encode() + path.read_bytes())
    return ids, content.hexdigest(), given


def answers_by_themselves(folder: pathlib.Path) -> dict[str, str]:
    """The answer to each country, from a file that has each once."""
    rows, out = folder / "countries.csv", folder / "countries-answered.csv"
    rows.write_text("\n".join(["country", *(f'"{name}"' for name in countries())]))
    order = [sys.executable, "-m", "ptune", "predict", PROMPT, "--data", rows, "--out", out]
    subprocess.run([*order, "--device", "cpu"], check=True, capture_output=True)
    with out.open(encoding="utf-8") as stream:
        return {row["country"]: row["ptune_prediction"] for row in csv.DictReader(stream)}


def faults(
    count: int, whole: pathlib.Path, killed: pathlib.Path, expected: dict[str, str]
) -> list[str]:
    """What is wrong with the answers of either run.

    Args:
        expected: the answer to each country.
    """
    (ids, content, given), (ids_of_killed, content_of_killed, _) = answers(whole), answers(killed)
    wrong = []
    if ids != list(range(count)):
        wrong.append(f"the whole run has other rows than {count}, each once and in order")
    if ids_of_killed != ids:
        wrong.append("the run that was killed has other rows")
    if content_of_killed != content:
        wrong.append("the bytes differ")
    if others := [name for name, answer in sorted(given) if expected[name] != answer]:
        wrong.append(f"another answer than by itself: {', '.join(others)}")
    return wrong


def main(folder: pathlib.Path, count: int, shard_rows: int | None = None) -> int:
    """Do the runs, and print what they gave."""
    make_rows(folder / "rows", count)
    whole = Answered(folder, "whole", [], shard_rows)
    files = whole.memory[-1][0]
    early = max(size for number, size in whole.memory if number <= 1)
    print(
        f"whole: {count} rows in {whole.seconds:.0f} s ({count / whole.seconds:.0f} rows a second), "
        f"{whole.cpu:.0f} s of CPU; {early:.0f} MiB up to the first of {files} files, "
        f"{max(size for _, size in whole.memory):.0f} MiB at most",
        flush=True,
    )
    moments = sorted(random.sample(range(1, files * 9 // 10), KILLS))
    killed = Answered(folder, "killed", moments, shard_rows)
    print(f"killed behind the files {moments}: {killed.seconds:.0f} s, {killed.cpu:.0f} s of CPU")
    wrong = faults(count, whole.out, killed.out, answers_by_themselves(folder))
    right = f"both have {count} rows, each once, the same bytes, and each country's own answer"
    print("; ".join(wrong) or right)
    return 1 if wrong else 0


if __name__ == "__main__":
    place, *number = sys.argv[1:]
    sys.exit(main(pathlib.Path(place), int(number[0]) if number else ROWS))
