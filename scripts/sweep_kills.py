"""Measures a sweep of 200 short runs by two processes: its runs together, killed, and alone.

    python scripts/sweep_kills.py FOLDER

Three sweeps of a small LM with random weights are done in the folder: ``together``, whose runs
share the calls of the LM; ``killed``, the same with five ``kill -9`` at random moments, each of a
process that is started again; and ``alone``, with ``--together 1``. For each it prints the seconds,
the calls of the LM (where none was killed), how many runs have a result and how many were reported
twice, and how far the figures and the trained values are from those of ``together`` at most. The
pages of the runs are left out, since they take longer than trainings of such an LM.
"""

import pathlib
import random
import re
import subprocess
import sys
import time

import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from ptune.experiments.options import SweepConfig
from ptune.experiments.sweep.sweep import sweep
from ptune.lm.language_model import LanguageModel
from ptune.reports.pages import runs_page
from ptune.reports.sweep_results import SweepResults

ROOT = pathlib.Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "continents"
KILLS, PROCESSES = 5, 2
SECONDS = 3  # a process is killed so long at most after the result that its turn comes at
TASK = f"""
name: continents
lm: lm
template: "{{soft:3}} {{country}} {{soft:3}} {{mask}}"
target: continent
labels: {{Africa: africa, America: america, Asia: asia, Europe: europe, Oceania: oceania}}
device: cpu
data: {{train: {EXAMPLES}/train.csv, dev: {EXAMPLES}/dev.csv, test: {EXAMPLES}/test.csv}}
train: {{steps: 40, batch_size: 8, evaluate_every: 20}}
"""
SWEEP = f"""
tasks: [task.yaml]
grid:
  train.learning_rate: [0.0003, 0.001, 0.003, 0.01, 0.03]
  train.seed: {[*range(20)]}
list:
- {{method: prompt-tuning}}
- {{method: p-tuning, encoder: mlp}}
"""


def make_lm(folder: pathlib.Path) -> None:
    """A BERT of two layers with random weights and the built-in LM's vocabulary."""
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "src" / "ptune" / "builtin" / "lm")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.25,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def work(folder: pathlib.Path, out: pathlib.Path, together: int) -> None:
    """What a process does; at its end it prints how often the LM was called."""
    calls, load = [], LanguageModel.load

    def counted(*arguments: object, **options: object) -> LanguageModel:
        lm = load(*arguments, **options)  # type: ignore[arg-type]
        lm.model.base_model.register_forward_hook(lambda *call: calls.append(1))
        return lm

    LanguageModel.load = counted  # type: ignore[method-assign, assignment]
    runs_page.write = lambda runs, place: (place / "report.html").touch()  # type: ignore[assignment]
    config = SweepConfig(file=folder / "sweep.yaml", out=out, together=together)
    sweep(config, lambda line: print(line, flush=True))
    print(f"calls {len(calls)}", flush=True)


class Swept:
    """A sweep by two processes, and what they printed."""

    def __init__(self, folder: pathlib.Path, out: str, *, together: int, kills: int):
        self.folder, self.out, self.together = folder, folder / out, together
        began = time.monotonic()
        self.log = (folder / f"{out}.log").open("w+")
        processes = [self._start() for _ in range(PROCESSES)]
        for results in sorted(random.sample(range(1, 190), kills)):
            while len(list((self.out / "results").glob("*.json"))) < results:
                time.sleep(0.05)
            time.sleep(random.uniform(0, SECONDS))
            number = random.randrange(PROCESSES)
            processes[number].kill()
            processes[number].wait()
            processes[number] = self._start()
        for process in processes:
            assert process.wait() == 0, f"see {self.log.name}"
        self.seconds = time.monotonic() - began
        self.lines = pathlib.Path(self.log.name).read_text()

    def _start(self) -> subprocess.Popen:
        order = [sys.executable, __file__, self.folder, "work", self.out, str(self.together)]
        return subprocess.Popen(order, stdout=self.log, stderr=self.log)

    @property
    def calls(self) -> int:
        """How often the LM was called by the processes that came to their end."""
        return sum(int(count) for count in re.findall(r"^calls (\d+)$", self.lines, re.MULTILINE))

    @property
    def reported(self) -> list[str]:
        """The runs of which a process said that they were done."""
        return re.findall(r"^ptune train .* --out (\w+): dev", self.lines, re.MULTILINE)

    @property
    def results(self) -> SweepResults:
        return SweepResults.model_validate_json((self.out / "results.json").read_text())


def differences(one: Swept, other: Swept) -> tuple[float, float]:
    """How far the figures and the trained values are apart at most."""
    figures, values = [0.0], [0.0]
    for first, second in zip(one.results.runs, other.results.runs, strict=True):
        assert first.name == second.name and not first.error and not second.error
        figures += [abs(first.figures[name] - second.figures[name]) for name in first.figures]
        prompts = [
            load_file(swept.out / "runs" / first.name / "prompt.safetensors")
            for swept in (one, other)
        ]
        values += [
            float((value - prompts[1][name]).abs().max())
            for name, value in prompts[0].items()
            if value.numel()
        ]
    return max(figures), max(values)


def main(folder: pathlib.Path) -> None:
    """Do the three sweeps, and print what they gave."""
    folder.mkdir()
    make_lm(folder / "lm")
    (folder / "task.yaml").write_text(TASK)
    (folder / "sweep.yaml").write_text(SWEEP)
    together = Swept(folder, "together", together=8, kills=0)
    show("together", together, together)
    show("killed", Swept(folder, "killed", together=8, kills=KILLS), together)
    show("alone", Swept(folder, "alone", together=1, kills=0), together)


def show(name: str, swept: Swept, together: Swept) -> None:
    """Print what a sweep gave."""
    figures, values = differences(together, swept)
    twice = len(swept.reported) - len(set(swept.reported))
    print(
        f"{name}: {swept.seconds:.0f} s, {swept.calls} calls of the LM, "
        f"{len(swept.results.runs)} results, {twice} reported twice; apart from together: "
        f"figures {figures:.1e}, values {values:.1e}",
        flush=True,
    )


if __name__ == "__main__":
    place, *asked = sys.argv[1:]
    if asked:
        work(pathlib.Path(place), pathlib.Path(asked[1]), int(asked[2]))
    else:
        main(pathlib.Path(place))
