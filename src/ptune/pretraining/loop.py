"""Small LMs from text: masked, causal and encoder-decoder, new ones or going on from one."""

import contextlib
import json
import math
import os
import pathlib
import shutil
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from ptune.answers.readers.next_sentence import PairHead
from ptune.base import files, terminal
from ptune.base.interrupts import Interrupted, stoppable
from ptune.base.progress import Progress
from ptune.errors import ConfigError, DivergedError
from ptune.lm.language_model import LanguageModel
from ptune.lm.patches.cpu.onednn_linear import keep_few_shapes
from ptune.lm.source.loading import choose_device, choose_dtype
from ptune.pretraining import batches, new_lm
from ptune.pretraining.batches import PAIRS, Batched, BatchMaker, Picks, Text
from ptune.pretraining.new_lm import KINDS, TOKENIZER
from ptune.pretraining.options import PretrainConfig
from ptune.pretraining.parts import LmSizes, Objective, Schedule, VocabularyChoice
from ptune.runs import identity
from ptune.runs.folder import RunFolder, working_in
from ptune.runs.without_trace import without_trace
from ptune.settings import part_of

HELD_OUT_BATCHES = 40
CHECKED_EVERY = 50  # steps between two checks that the loss is still a finite number


def pretrain(
    config: PretrainConfig, report: Callable[[str], None] = terminal.print_line
) -> pathlib.Path:
    """Train the LM that the config describes; return its folder.

    The data of step s follow from (seed, s) alone, so a run that was killed and resumed is the run
    that was not.

    Raises:
        ConfigError, DataError, ModelError: the config, a text or the LM to go on from is at fault.
        DivergedError: the loss or a weight became no finite number; nothing of that is saved.
    """
    keep_few_shapes()
    _check(config)
    with working_in(config.out, "ptune pretrain", config.resume) as folder:
        return _pretrained(config, folder, report)


def _pretrained(
    config: PretrainConfig, folder: RunFolder, report: Callable[[str], None]
) -> pathlib.Path:
    """The training, in a folder that is held."""
    lm = _lm(config)
    _check_length(config.length, lm, config.lm)
    settings = identity.of_settings(
        config, ("resume", "save_minutes", "device", "out", "lm", "tokenizer")
    )
    whole = {**settings, "lm": identity.of_lm(lm)}
    if folder.begun is None:
        _rehearse(config, lm)
    folder.claim(whole)
    _keep_tokenizer(config, lm)
    objective, schedule = part_of(Objective, config), part_of(Schedule, config)
    with folder.left_as_it_was():
        text = batches.read(
            config.texts,
            lm,
            config.out / "training" / "text",
            objective=objective,
            length=config.length,
            held_out=config.held_out,
            seed=config.seed,
        )
    head = _new_head(config.next_sentence, lm)
    dtype = choose_dtype(config.dtype, lm.device)
    run = PretrainingRun(
        lm, text, head, objective=objective, schedule=schedule, dtype=dtype, out=config.out
    )
    if config.resume:
        run.restore()
    size = sum(parameter.numel() for parameter in lm.model.parameters())
    tokens = sum(len(one.ids) for one in text.corpora)
    report(
        f"{type(lm.model).__name__}, {size / 1e6:.1f} M parameters, vocabulary "
        f"{len(lm.tokens.tokenizer)}; {tokens / 1e6:.1f} M tokens of text"
    )
    run.train(report)
    _save(config.out, config.save_dtype, lm, run.head)
    return config.out


def _check(config: PretrainConfig) -> None:
    """Refuse settings that do not go together."""
    if config.weights and len(config.weights) != len(config.texts):
        raise ConfigError(
            f"{len(config.weights)} weights for {len(config.texts)} texts: give one for each, or "
            "none."
        )
    if config.next_sentence != "none" and config.objective != "masked":
        raise ConfigError("next_sentence goes with the masked objective only.")


def _lm(config: PretrainConfig) -> LanguageModel:
    """The LM to train, on its device, in float32; a checkpoint's tokenizer is used again."""
    kind, device = KINDS[config.objective], choose_device(config.device)
    torch.manual_seed(config.seed)
    words = part_of(VocabularyChoice, config)
    if config.lm is not None:
        model, tokenizer = new_lm.known(config.lm, kind, words)
    else:
        learned = config.out / TOKENIZER
        saved = config.tokenizer or (os.fspath(learned) if learned.exists() else None)
        model, tokenizer = new_lm.new(kind, part_of(LmSizes, config), words, saved)
    return LanguageModel(model.float().to(device), tokenizer, kind, str(config.out))


def _check_length(length: int, lm: LanguageModel, name: str | None) -> None:
    """Refuse sequences that are longer than the table of positions of the LM of that name."""
    sizes = [
        module.num_embeddings - (lm.forward.offset or 0)
        for name, module in lm.model.named_modules()
        if isinstance(module, nn.Embedding) and ("position" in name or name.endswith("wpe"))
    ]
    if sizes and length > min(sizes):
        raise ConfigError(
            f"length is {length}, and {name} has positions for {min(sizes)} tokens: "
            f"set length to {min(sizes)} or fewer."
        )


def _new_head(next_sentence: str, lm: LanguageModel) -> PairHead | None:
    """The head that tells how the halves of a row relate, where one is asked for."""
    if next_sentence == "none":
        return None
    return PairHead(lm.model.config.hidden_size, PAIRS[next_sentence]).to(lm.device)


def _keep_tokenizer(config: PretrainConfig, lm: LanguageModel) -> None:
    """Keep the tokenizer that was learned, so that a run that goes on need not learn it again."""
    if not (config.lm or config.tokenizer or (config.out / TOKENIZER).exists()):
        files.write_folder(config.out / TOKENIZER, lm.tokens.tokenizer.save_pretrained)


def _rehearse(config: PretrainConfig, lm: LanguageModel) -> None:
    """Take one step on the first pieces of the texts, and look at the held-out loss. Nothing is
    written, and the LM and the state of random numbers are as they were afterwards.

    Raises:
        PtuneError: something does not fit together.
    """
    objective = part_of(Objective, config)
    brief = replace(part_of(Schedule, config), batch_tokens=2 * config.length, weights=[])
    text = batches.sample(config.texts, lm, objective, config.length)
    if not sum(map(len, text.training)):
        return
    with without_trace(lm, tuned=True):
        head, dtype = _new_head(config.next_sentence, lm), choose_dtype(config.dtype, lm.device)
        run = PretrainingRun(
            lm, text, head, objective=objective, schedule=brief, dtype=dtype, out=config.out
        )
        try:
            run.step(run.batches.held_out(1)[0])
            run.held_out_figures()
        finally:
            lm.tune(False)


class PretrainingRun:
    """A training run: the model, its optimiser, and the number of steps that were taken."""

    def __init__(
        self,
        lm: LanguageModel,
        text: Text,
        head: PairHead | None,
        *,
        objective: Objective,
        schedule: Schedule,
        dtype: torch.dtype,
        out: pathlib.Path,
    ):
        self.lm, self.text, self.head, self.steps = lm, text, head, 0
        self.schedule = schedule
        self.label = objective.objective
        self.batches = BatchMaker(objective, schedule, lm, text)
        self.modules = nn.ModuleDict({"lm": lm.model, **({"pair": head} if head else {})})
        lm.tune(True)
        self.optimiser = _optimiser(self.modules, schedule)
        self.state = out / "training" / "state.safetensors"
        self.log = out / "training" / "log.jsonl"
        self.evaluations: list[dict[str, float]] = []
        self.autocast = (
            (lambda: torch.autocast(lm.device.type, dtype))
            if dtype != torch.float32
            else contextlib.nullcontext
        )

    def train(self, report: Callable[[str], None]) -> None:
        """Take all steps that are left, with a checkpoint and a look at the held-out text every so
        many minutes.

        Raises:
            DivergedError: the loss or a weight is no finite number.
            Interrupted: Ctrl-C or a termination signal arrived; a checkpoint was written before.
        """
        schedule, saved = self.schedule, time.monotonic()
        with (
            Progress(self.label, schedule.steps, self.steps) as progress,
            stoppable() as stopped,
        ):
            for picks in self.batches.from_step(self.steps):
                loss = self.step(picks)
                progress.advance(loss=loss)
                if self.steps % CHECKED_EVERY == 0 and not torch.isfinite(loss):
                    raise self._diverged()
                if stopped():
                    self.save()
                    raise Interrupted(f"Stopped; {self.state} holds all that was trained.")
                waited = time.monotonic() - saved > 60 * schedule.save_minutes
                if waited or self.steps == schedule.steps:
                    report(f"step {self.steps}: held-out {self._evaluate()}")
                    self.save()
                    saved = time.monotonic()

    def step(self, picks: Picks) -> torch.Tensor:
        """Take one step on some pieces; return the loss."""
        schedule = self.schedule
        self.lm.tune(True)
        torch.manual_seed(schedule.seed * 1_000_003 + self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = schedule.learning_rate * _rate(
                self.steps, schedule.steps, schedule.warmup
            )
        batched = self.batches.collate(picks, self.text.training, (schedule.seed, 1, self.steps))
        with self.autocast():
            loss = self._loss(batched)
        loss.backward()
        nn.utils.clip_grad_norm_(self.modules.parameters(), schedule.clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.steps += 1
        return loss.detach()

    def _loss(self, batched: Batched) -> torch.Tensor:
        hidden, _, scores = self.lm.read(batched.batch)
        labels, relations = batched.labels, batched.relations
        loss = nn.functional.cross_entropy(scores[: len(labels)], labels.to(scores.device))
        if relations is not None:
            assert self.head is not None
            related = self.head(hidden[len(labels) :]).float()
            loss = loss + nn.functional.cross_entropy(related, relations.to(scores.device))
        return loss

    @torch.no_grad()
    def held_out_figures(self) -> dict[str, float]:
        """Loss and perplexity on the held-out text, and the accuracy of the pair head; the same
        masks each time. None where no text is held out.

        Raises:
            DivergedError: the loss is no finite number.
        """
        total, count, right, pairs = 0.0, 0, 0, 0
        self.lm.tune(False)
        for number, picks in enumerate(self.batches.held_out(HELD_OUT_BATCHES)):
            seed = (self.schedule.seed, 2, number)
            batched = self.batches.collate(picks, self.text.held_out, seed)
            with self.autocast():
                hidden, _, scores = self.lm.read(batched.batch)
            labels, relations = batched.labels, batched.relations
            asked = scores[: len(labels)], labels.to(scores.device)
            total += float(nn.functional.cross_entropy(*asked, reduction="sum"))
            count += len(labels)
            if relations is not None and self.head:
                answers = self.head(hidden[len(labels) :].float()).argmax(1).cpu()
                right += int((answers == relations).sum())
                pairs += len(relations)
        self.lm.tune(True)
        loss = total / count
        if not math.isfinite(loss):
            raise self._diverged()
        figures = {"loss": round(loss, 4), "perplexity": round(math.exp(min(loss, 50)), 2)}
        return figures | ({"pairs right": round(right / pairs, 4)} if pairs else {})

    def _evaluate(self) -> str:
        """Look at the held-out text, and write the figures to the log."""
        if not sum(map(len, self.text.held_out)):
            return "text: none"
        figures = self.held_out_figures()
        self.evaluations.append({"step": self.steps, **figures})
        lines = [json.dumps(evaluation) + "\n" for evaluation in self.evaluations]
        files.write_text(self.log, "".join(lines))
        return ", ".join(f"{name} {value}" for name, value in figures.items())

    def save(self) -> None:
        """A checkpoint: weights, optimiser, number of steps.

        Raises:
            DivergedError: a weight is no finite number; the checkpoint from before stays.
        """
        if not all(torch.isfinite(weight).all() for weight in self.modules.parameters()):
            raise self._diverged()
        tensors = {f"model.{name}": value for name, value in self.modules.state_dict().items()}
        tensors |= {
            f"optimiser.{name}": value
            for name, value in files.optimiser_tensors(self.optimiser).items()
        }
        files.write_tensors(self.state, tensors, {"step": self.steps, "looks": self.evaluations})

    def _diverged(self) -> DivergedError:
        before = ""
        if self.state.exists():
            before = f" {self.state} holds the last checkpoint from before that."
        return DivergedError(
            f"The training diverged by step {self.steps} (the loss or a weight is no finite number "
            "any more): "
            f"lower learning_rate (it is {self.schedule.learning_rate:g}) and begin anew in "
            f"another --out.{before}"
        )

    def restore(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if not self.state.exists():
            return
        tensors, note = files.read_noted(self.state)
        self.steps, self.evaluations = note["step"], note["looks"]
        self.modules.load_state_dict(_part(tensors, "model."), strict=False)
        files.restore_optimiser(self.optimiser, _part(tensors, "optimiser."))


def _optimiser(modules: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """AdamW, without weight decay on biases and norms."""
    plain = [parameter for parameter in modules.parameters() if parameter.dim() < 2]
    decayed = [parameter for parameter in modules.parameters() if parameter.dim() >= 2]
    groups = [
        {"params": decayed, "weight_decay": schedule.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.learning_rate, fused=True)


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _rate(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then linear decay, as a share of the peak."""
    rising = max(1, round(steps * warmup))
    return (
        (step + 1) / rising if step < rising else max(0.0, (steps - step) / max(1, steps - rising))
    )


def _save(out: pathlib.Path, dtype: str, lm: LanguageModel, head: PairHead | None) -> None:
    lm.tune(False)
    lm.model.to(getattr(torch, dtype))
    if not all(torch.isfinite(weight).all() for weight in lm.model.parameters()):
        raise DivergedError(
            f"A weight is too large for {dtype}: save in float32 (save_dtype), or "
            "lower learning_rate."
        )

    def put(folder: str) -> None:
        lm.write_files(folder)
        if (out / TOKENIZER).exists():
            shutil.copytree(out / TOKENIZER, folder, dirs_exist_ok=True)
        if head:
            head.save(pathlib.Path(folder))

    files.write_folder(out, put)
