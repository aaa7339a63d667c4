"""Small LMs from text: masked, causal and encoder-decoder, new ones or going on from one."""

import contextlib
import json
import math
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from ptune.answers.next_sentence import PairHead
from ptune.base import files, terminal
from ptune.base.interrupts import Interrupted, stoppable
from ptune.base.progress import Progress
from ptune.errors import ConfigError, DataError, DivergedError
from ptune.lm.batch import Batch
from ptune.lm.language_model import LanguageModel
from ptune.lm.loading import choose_device, choose_dtype, load_model, load_tokenizer
from ptune.lm.patches.onednn_linear import keep_few_shapes
from ptune.pretraining import corpus, vocabulary
from ptune.pretraining.options import PretrainConfig
from ptune.runs import identity
from ptune.runs.folder import RunFolder, working_in
from ptune.template.language import Kind

KINDS: dict[str, Kind] = {
    "masked": "masked",
    "causal": "causal",
    "span-corruption": "encoder-decoder",
    "prefix-lm": "encoder-decoder",
}
PAIRS = {
    "two-way": ("adjacent", "not adjacent"),
    "three-way": ("adjacent", "same document", "another document"),
}
HELD_OUT_BATCHES = 40
CHECKED_EVERY = 50  # steps between two checks that the loss is still a finite number
TOKENIZER = pathlib.Path("training") / "tokenizer"


@dataclass
class Text:
    """What is read: each text's corpus, its training pieces and its held-out ones, both [S, 3]
    (``Corpus.sequences``)."""

    corpora: list[corpus.Corpus]
    training: list[np.ndarray]
    held_out: list[np.ndarray]


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
    lm = _prepare(config)
    settings = identity.of_settings(
        config, ("resume", "save_minutes", "device", "out", "lm", "tokenizer")
    )
    folder.claim({**settings, "lm": identity.of_lm(lm)})
    _keep_tokenizer(config, lm)
    text = _read(config, lm)
    head = (
        PairHead(lm.model.config.hidden_size, PAIRS[config.next_sentence]).to(lm.device)
        if config.next_sentence != "none"
        else None
    )
    run = _Run(config, lm, text, head)
    if config.resume:
        run.restore()
    report(
        f"{type(lm.model).__name__}, {sum(p.numel() for p in lm.model.parameters()) / 1e6:.1f} M "
        "parameters, vocabulary "
        f"{len(lm.tokens.tokenizer)}; {sum(len(c.ids) for c in text.corpora) / 1e6:.1f} M tokens "
        "of text"
    )
    run.train(report)
    _save(config, lm, head)
    return config.out


def _prepare(config: PretrainConfig) -> LanguageModel:
    """The LM to train, on its device, in float32; a checkpoint's tokenizer is used again."""
    kind, device = KINDS[config.objective], choose_device(config.device)
    torch.manual_seed(config.seed)
    if config.lm is not None:
        model, tokenizer = load_model(config.lm, kind, torch.float32, needs_head=False)
        if config.vocabulary_size:
            keep = vocabulary.lines([config.keep_words]) if config.keep_words else ()
            tokenizer = vocabulary.cut(model, tokenizer, config.texts, config.vocabulary_size, keep)
    else:
        saved = config.out / TOKENIZER
        if config.tokenizer or saved.exists():
            tokenizer = load_tokenizer(os.fspath(config.tokenizer or saved))
        else:
            tokenizer = vocabulary.new_tokenizer(
                config.texts, kind, config.vocabulary_size or 8000, config.length
            )
        model = _new_model(config, kind, tokenizer)
    return LanguageModel(model.float().to(device), tokenizer, kind, str(config.out))


def _keep_tokenizer(config: PretrainConfig, lm: LanguageModel) -> None:
    """Keep the tokenizer that was learned, so that a run that goes on need not learn it again."""
    if not (config.lm or config.tokenizer or (config.out / TOKENIZER).exists()):
        files.write_folder(config.out / TOKENIZER, lm.tokens.tokenizer.save_pretrained)


def _check(config: PretrainConfig) -> None:
    """Refuse settings that do not go together."""
    if config.weights and len(config.weights) != len(config.texts):
        raise ConfigError(
            f"{len(config.weights)} weights for {len(config.texts)} texts: give one for each, or "
            "none."
        )
    if config.next_sentence != "none" and config.objective != "masked":
        raise ConfigError("next_sentence goes with the masked objective only.")


def _new_model(config: PretrainConfig, kind: Kind, tokenizer: Any) -> Any:
    if config.hidden_size % config.heads:
        raise ConfigError(
            f"The width {config.hidden_size} cannot be shared by {config.heads} heads."
        )
    size, ids = (
        len(tokenizer),
        {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id},
    )
    if kind == "masked":
        return BertForMaskedLM(
            BertConfig(
                vocab_size=size,
                hidden_size=config.hidden_size,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=4 * config.hidden_size,
                max_position_embeddings=max(512, config.length),
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    if kind == "causal":
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=size,
                hidden_size=config.hidden_size,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                num_key_value_heads=config.heads,
                intermediate_size=8 * config.hidden_size // 3 // 8 * 8,
                max_position_embeddings=max(512, config.length),
                tie_word_embeddings=True,
                bos_token_id=tokenizer.bos_token_id,
                **ids,
            )
        )
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=size,
            d_model=config.hidden_size,
            d_kv=config.hidden_size // config.heads,
            d_ff=2 * config.hidden_size,
            num_layers=config.layers,
            num_heads=config.heads,
            feed_forward_proj="gated-gelu",
            decoder_start_token_id=tokenizer.pad_token_id,
            **ids,
        )
    )


def _read(config: PretrainConfig, lm: LanguageModel) -> Text:
    """Tokenise the texts, and cut them into pieces. An LM that reads from left to right gets one
    joined stream."""
    joined = lm.kind != "masked"
    end = lm.tokens.tokenizer.eos_token_id if joined else None
    corpora = [
        corpus.tokenise(path, lm.tokens.tokenizer, config.out / "training" / "text", end)
        for path in config.texts
    ]
    room = config.length - (
        len(lm.tokens.before) + len(lm.tokens.after) if not joined else int(lm.kind != "causal")
    )
    room -= len(lm.tokens.between or ()) if config.next_sentence != "none" else 0
    pieces = [c.sequences(room, joined) for c in corpora]
    if lm.kind != "masked":
        pieces = [p[p[:, 1] - p[:, 0] > 1] for p in pieces]  # one token leaves nothing to predict
    aside = [
        np.random.default_rng((config.seed, number)).random(len(p)) < config.held_out
        for number, p in enumerate(pieces)
    ]
    text = Text(
        corpora, [p[~a] for p, a in zip(pieces, aside)], [p[a] for p, a in zip(pieces, aside)]
    )
    if not sum(map(len, text.training)):
        raise DataError("The texts hold no sequence to train on.")
    if (
        config.next_sentence != "none"
        and len({(number, d) for number, p in enumerate(pieces) for d in np.unique(p[:, 2])}) < 2
    ):
        raise DataError(
            "Next-sentence prediction needs several documents: put blank lines between them."
        )
    return text


class _Run:
    """A training run: the model, its optimiser, and the step it is at."""

    def __init__(
        self, config: PretrainConfig, lm: LanguageModel, text: Text, head: PairHead | None
    ):
        self.config, self.lm, self.text, self.head, self.step = config, lm, text, head, 0
        self.modules = nn.ModuleDict({"lm": lm.model, **({"pair": head} if head else {})})
        lm.tune(True)
        plain = [p for p in self.modules.parameters() if p.dim() < 2]
        decayed = [p for p in self.modules.parameters() if p.dim() >= 2]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": config.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            fused=True,
        )
        self.state = config.out / "training" / "state.safetensors"
        self.log = config.out / "training" / "log.jsonl"
        self.evaluations: list[dict[str, float]] = []
        dtype = choose_dtype(config.dtype, lm.device)
        self.autocast = (
            (lambda: torch.autocast(lm.device.type, dtype))
            if dtype != torch.float32
            else contextlib.nullcontext
        )

    def train(self, report: Callable[[str], None]) -> None:
        config, saved = self.config, time.monotonic()
        with (
            Progress(f"{config.objective}", config.steps, self.step) as progress,
            stoppable() as stopped,
        ):
            for picks in self._batches():
                self.lm.tune(True)
                torch.manual_seed(config.seed * 1_000_003 + self.step)
                for group in self.optimiser.param_groups:
                    group["lr"] = config.learning_rate * _rate(
                        self.step, config.steps, config.warmup
                    )
                batch, labels, relations = self._collate(
                    picks, self.text.training, (config.seed, 1, self.step)
                )
                with self.autocast():
                    loss = self._loss(batch, labels, relations)
                loss.backward()
                nn.utils.clip_grad_norm_(self.modules.parameters(), config.clip)
                self.optimiser.step()
                self.optimiser.zero_grad()
                self.step += 1
                progress.advance(loss=loss.detach())
                if self.step % CHECKED_EVERY == 0 and not torch.isfinite(loss):
                    raise self._diverged()
                if stopped():
                    self.save()
                    raise Interrupted(f"Stopped; {self.state} holds all that was trained.")
                if time.monotonic() - saved > 60 * config.save_minutes or self.step == config.steps:
                    report(f"step {self.step}: held-out {self._evaluate()}")
                    self.save()
                    saved = time.monotonic()

    def _batches(self) -> Iterator[list[tuple[int, int]]]:
        """The batches from this step on; an epoch's order follows from the seed."""
        config, epoch_start, number = self.config, 0, 0
        extra = len(self.lm.tokens.before) + len(self.lm.tokens.after)
        while self.step < config.steps:
            batches = corpus.epoch(
                self.text.training,
                config.weights or [1.0] * len(config.texts),
                config.batch_tokens,
                extra,
                config.seed + 7919 * number,
            )
            if not batches:
                raise DataError("With these weights an epoch takes nothing; make them larger.")
            for picks in batches[max(0, self.step - epoch_start) :]:
                if self.step == config.steps:
                    return
                yield picks
            epoch_start, number = epoch_start + len(batches), number + 1

    def _collate(
        self, picks: list[tuple[int, int]], pieces: list[np.ndarray], seed: tuple[int, ...]
    ) -> tuple[Batch, torch.Tensor, torch.Tensor | None]:
        """A batch, the token asked for at each of its answer places, and how the pairs relate."""
        config, tokens, random = self.config, self.lm.tokens, np.random.default_rng(seed)
        spans = [(number, *pieces[number][piece]) for number, piece in picks]
        rows = [np.asarray(self.text.corpora[c].ids[a:b]) for c, a, b, _ in spans]
        relations, types = None, None
        if config.objective == "masked":
            starts = [np.asarray(self.text.corpora[c].starts[a:b]) for c, a, b, _ in spans]
            if self.head:
                rows, starts, types, relations = self._pairs(spans, rows, starts, pieces, random)
            arrays = corpus.masked(
                rows,
                starts,
                config.mask_share,
                int(tokens.mask or 0),
                len(tokens.tokenizer),
                random,
                (tokens.before, tokens.after),
                tokens.pad,
                {*(tokens.between or ())},
            )
        elif config.objective == "causal":
            arrays = corpus.causal(rows, tokens.pad)
        else:
            end = tokens.tokenizer.eos_token_id
            sentinels = (
                [tokens.sentinel + s for s in self._sentinel_order()]
                if tokens.sentinel is not None
                else []
            )
            if config.objective == "span-corruption":
                if not sentinels:
                    raise ConfigError(
                        "Span corruption needs a tokenizer with sentinels (<extra_id_0> ...); "
                        "this one has none."
                    )
                arrays = corpus.corrupted(rows, sentinels, end, self.lm.start, random, tokens.pad)
            else:
                arrays = corpus.split(rows, end, self.lm.start, random, tokens.pad)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        has_label = tensors["labels"] != -100
        places = has_label.nonzero()
        if (
            relations is not None
        ):  # the pair head reads the first token, so it is one more answer place in each row
            places = torch.cat(
                [
                    places,
                    torch.stack(
                        [torch.arange(len(rows)), torch.zeros(len(rows), dtype=torch.long)], 1
                    ),
                ]
            )
        batch = Batch(
            tensors["input_ids"],
            tensors["attention_mask"],
            torch.full_like(tensors["input_ids"], -1),
            torch.full((len(rows),), -1),
            types,
            places[:, 0],
            places[:, 1],
            tensors.get("decoder_input_ids"),
            tensors.get("decoder_attention_mask"),
        )
        return batch, tensors["labels"][has_label], relations

    def _sentinel_order(self) -> list[int]:
        """Sentinels by number, as offsets from the first: T5's own vocabulary counts them
        downwards."""
        tokenizer, first_sentinel = self.lm.tokens.tokenizer, self.lm.tokens.sentinel
        second_sentinel = tokenizer.convert_tokens_to_ids("<extra_id_1>")
        step = (
            second_sentinel - first_sentinel
            if second_sentinel is not None and second_sentinel != tokenizer.unk_token_id
            else 1
        )
        return [step * number for number in range(vocabulary.SENTINELS)]

    def _pairs(
        self,
        spans: list[Any],
        rows: list[np.ndarray],
        starts: list[np.ndarray],
        pieces: list[np.ndarray],
        random: np.random.Generator,
    ) -> tuple[list[np.ndarray], list[np.ndarray], torch.Tensor, torch.Tensor]:
        """Cut each row in two at a word, put another text in place of some second halves, and the
        separator between."""
        between, types = self.lm.tokens.between or [], self.lm.tokens.types or (0, 0, 1)
        relations = random.integers(len(PAIRS[self.config.next_sentence]), size=len(rows))
        joined_rows, marks, kinds = [], [], []
        for number, ((c, _, _, document), ids, word_starts) in enumerate(zip(spans, rows, starts)):
            middle = next(
                (i for i in range(max(1, len(ids) // 2), len(ids)) if word_starts[i]), len(ids)
            )
            second_ids, second_starts = ids[middle:], word_starts[middle:]
            same = self.config.next_sentence == "three-way" and relations[number] == 1
            other = self._other(c, document, pieces, random, same) if relations[number] else None
            if other is not None:
                second_ids, second_starts = (part[: max(1, len(ids) - middle)] for part in other)
            elif relations[number]:
                relations[number] = 0
            joined_rows.append(np.concatenate([ids[:middle], between, second_ids]).astype(np.int64))
            marks.append(
                np.concatenate([word_starts[:middle], np.ones(len(between), bool), second_starts])
            )
            first_length = len(self.lm.tokens.before) + middle
            kinds.append(
                [types[0]] * first_length
                + [types[1]] * len(between)
                + [types[2]] * (len(second_ids) + len(self.lm.tokens.after))
            )
        width = max(map(len, kinds))
        return (
            joined_rows,
            marks,
            torch.tensor([k + [0] * (width - len(k)) for k in kinds]),
            torch.from_numpy(relations),
        )

    def _other(
        self,
        c: int,
        document: int,
        pieces: list[np.ndarray],
        random: np.random.Generator,
        same: bool,
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """A random piece of the same document, or of any other one; None where chance finds
        none."""
        for _ in range(20):
            number = (
                c
                if same
                else int(
                    random.choice(
                        len(pieces), p=np.array(list(map(len, pieces))) / sum(map(len, pieces))
                    )
                )
            )
            pool = pieces[c][pieces[c][:, 2] == document] if same else pieces[number]
            if not len(pool):
                return None
            start, end, other_document = pool[random.integers(len(pool))]
            if (
                (number, other_document) == (c, document)
                if same
                else (number, other_document) != (c, document)
            ):
                text = self.text.corpora[number]
                return np.asarray(text.ids[start:end]), np.asarray(text.starts[start:end])
        return None

    def _loss(
        self, batch: Batch, labels: torch.Tensor, relations: torch.Tensor | None
    ) -> torch.Tensor:
        hidden, _, scores = self.lm.read(batch)
        loss = nn.functional.cross_entropy(scores[: len(labels)], labels.to(scores.device))
        if relations is not None:
            assert self.head is not None
            loss = loss + nn.functional.cross_entropy(
                self.head(hidden[len(labels) :]).float(), relations.to(scores.device)
            )
        return loss

    @torch.no_grad()
    def _evaluate(self) -> str:
        """Loss and perplexity on the held-out text, and the accuracy of the pair head; the same
        masks each time."""
        if not sum(map(len, self.text.held_out)):
            return "text: none"
        self.lm.tune(False)
        batches = corpus.epoch(
            self.text.held_out, [1.0] * len(self.text.held_out), self.config.batch_tokens, 0, 0
        )[:HELD_OUT_BATCHES]
        total, count, right, pairs = 0.0, 0, 0, 0
        for number, picks in enumerate(batches):
            batch, labels, relations = self._collate(
                picks, self.text.held_out, (self.config.seed, 2, number)
            )
            with self.autocast():
                hidden, _, scores = self.lm.read(batch)
            total += float(
                nn.functional.cross_entropy(
                    scores[: len(labels)], labels.to(scores.device), reduction="sum"
                )
            )
            count += len(labels)
            if relations is not None and self.head:
                right += int(
                    (self.head(hidden[len(labels) :].float()).argmax(1).cpu() == relations).sum()
                )
                pairs += len(relations)
        self.lm.tune(True)
        loss = total / count
        if not math.isfinite(loss):
            raise self._diverged()
        line = {
            "step": self.step,
            "loss": round(loss, 4),
            "perplexity": round(math.exp(min(loss, 50)), 2),
        }
        line |= {"pairs right": round(right / pairs, 4)} if pairs else {}
        self.evaluations.append(line)
        files.write_text(
            self.log, "".join(json.dumps(evaluation) + "\n" for evaluation in self.evaluations)
        )
        return ", ".join(f"{k} {v}" for k, v in line.items() if k != "step")

    def save(self) -> None:
        """A checkpoint: weights, optimiser, step.

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
        files.write_tensors(self.state, tensors, {"step": self.step, "looks": self.evaluations})

    def _diverged(self) -> DivergedError:
        before = (
            f" {self.state} holds the last checkpoint from before that."
            if self.state.exists()
            else ""
        )
        return DivergedError(
            f"The training diverged by step {self.step} (the loss or a weight is no finite number "
            "any more): "
            f"lower learning_rate (it is {self.config.learning_rate:g}) and begin anew.{before}"
        )

    def restore(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if not self.state.exists():
            return
        tensors, state = files.read_noted(self.state)
        self.step, self.evaluations = state["step"], state["looks"]
        self.modules.load_state_dict(
            {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")},
            strict=False,
        )
        files.restore_optimiser(
            self.optimiser,
            {
                k.removeprefix("optimiser."): v
                for k, v in tensors.items()
                if k.startswith("optimiser.")
            },
        )


def _rate(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then linear decay, as a share of the peak."""
    rising = max(1, round(steps * warmup))
    return (
        (step + 1) / rising if step < rising else max(0.0, (steps - step) / max(1, steps - rising))
    )


def _save(config: PretrainConfig, lm: LanguageModel, head: PairHead | None) -> None:
    lm.tune(False)
    lm.model.to(getattr(torch, config.save_dtype))
    if not all(torch.isfinite(weight).all() for weight in lm.model.parameters()):
        raise DivergedError(
            f"A weight is too large for {config.save_dtype}: save in float32 (save_dtype), or "
            "lower learning_rate."
        )

    def put(folder: str) -> None:
        lm.write_files(folder)
        if (config.out / TOKENIZER).exists():
            shutil.copytree(config.out / TOKENIZER, folder, dirs_exist_ok=True)
        if head:
            head.save(pathlib.Path(folder))

    files.write_folder(config.out, put)
