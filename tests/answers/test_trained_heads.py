"""Trained readers against transformers called directly, a row at a time: soft verbalizers,
prototypes, classification heads. Each test first shows that a wrong place or a wrong value is far
outside the tolerance."""

from collections.abc import Sequence

import pytest
import reference
import tiny
import torch
from by_hand import Pieces, Plain

from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.reader_table import READERS
from ptune.answers.readers.trained_heads import Head, Prototypes, SoftWords
from ptune.base import files
from ptune.errors import ConfigError, ModelError, StoreError, TemplateError, VerbalizerError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.settings import TrainConfig
from ptune.storage import prompt_folder
from ptune.template.language import Template
from ptune.training.loop import fit

TOLERANCE = 1e-5
FAR = 100 * TOLERANCE
FAMILIES = ("bert", "roberta", "electra", "deberta", "gpt2", "llama", "t5", "bart")
ROWS = [
    {"a": "Vienna lies on the Danube", "b": "Rome", "label": "good"},
    {"a": "It was", "b": "it was a film", "label": "other"},
    {"a": "Paris", "b": "Berlin is great and Rome is bad", "label": "bad"},
    {"a": "the best film", "b": "No", "label": "good"},
]
WORDS = {"good": ["great", "good film"], "bad": ["bad", "No"], "other": ["a great city"]}
VERBALIZER = Verbalizer.from_words(WORDS)
LABELS = list(WORDS)
SOFT = "{soft:3} {a} {soft:1} It was {mask}"


def soft(row) -> Pieces:
    return [0, 1, 2, f" {row['a']}", 3, " It was"]


def build(family: str, *tasks: Task) -> tuple[PromptModel, Plain]:
    """A model with wide soft vectors and heads, and its LM by hand."""
    model, plain = PromptModel(LanguageModel(*tiny.tiny(family))), Plain(family)
    for task in tasks:
        model.add(task, ROWS)
    for part in (model.bank.encoders, model.bank.prefixes):
        for parameter in part.parameters():
            torch.nn.init.normal_(
                parameter, 0, 0.5, generator=torch.Generator().manual_seed(parameter.numel())
            )
    return model, plain


def task(name: str, template: str, reader: str, **more) -> Task:
    return Task(
        name,
        Template.parse(template),
        VERBALIZER,
        **{"encoder": "table", "reader": READERS[reader], **more},
    )


def vectors(model: PromptModel, number: int) -> torch.Tensor:
    return model.bank.encoders[model.tasks[number].prompt]()


def headed(head: Head, hidden: torch.Tensor) -> torch.Tensor:
    """A plain classification head, written out."""
    dense, classifier = head.dense, head.classifier
    return torch.tanh(hidden @ dense.weight.T + dense.bias) @ classifier.weight.T + classifier.bias


# Soft verbalizers.


@pytest.mark.parametrize("family", tiny.FAMILIES)
@torch.no_grad()
def test_a_soft_verbalizer_starts_as_its_words(family):
    """Its score is the mean of the logits of the words' tokens; one word of one token a label: the
    words' score, up to what all labels have in common."""
    single = {"good": ["great"], "bad": ["film"], "other": ["is"]}
    model, plain = build(
        family,
        task("soft", SOFT, "soft"),
        *(
            Task(
                reader,
                Template.parse(SOFT),
                Verbalizer.from_words(single),
                encoder="table",
                reader=READERS[reader],
            )
            for reader in ("soft", "words")
        ),
    )
    if model.lm.vocabulary is None:
        pytest.skip("this LM has no vectors of its words")
    assert all(len(ids) == 1 for ids in model.tasks[2].verbalizer.ids)
    examples = [
        example for number in range(3) for example in model.encode(number, ROWS, labelled=False)
    ]
    scores = torch.stack(model.scores(examples, rows=5)).reshape(3, len(ROWS), 3)
    logits = torch.stack([plain.logits(soft(row), vectors=vectors(model, 0))[0] for row in ROWS])
    if cap := getattr(
        plain.network.config, "final_logit_softcapping", None
    ):  # the words' scores before the LM squeezes them
        logits = cap * torch.atanh(logits / cap)
    wanted = torch.stack(
        [
            logits[:, [token for word in label_words for token in plain.word(word)]].mean(1)
            for label_words in WORDS.values()
        ],
        1,
    )
    first = torch.stack(
        [logits[:, plain.word(label_words[0])[0]] for label_words in WORDS.values()], 1
    )
    assert (first - wanted).abs().max() > FAR, "the first piece alone does not show"
    torch.testing.assert_close(
        scores[0], wanted, atol=TOLERANCE * max(1, float(wanted.abs().max())), rtol=TOLERANCE
    )
    assert (scores[1] - scores[1].mean(1, keepdim=True)).abs().max() > FAR
    if not cap:
        torch.testing.assert_close(
            scores[1].log_softmax(1), scores[2].log_softmax(1), atol=3 * TOLERANCE, rtol=TOLERANCE
        )


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_soft_verbalizer_reads_at_the_answer_behind_soft_tokens(family):
    """OpenPrompt's soft template with its soft verbalizer reads hidden states as many places too
    early as there are soft tokens."""
    model, plain = build(
        family, task("soft", SOFT, "soft"), task("words", "{a} It was {mask}", "words")
    )
    reader = model.bank.readers[0]
    for parameter in reader.parameters():
        torch.nn.init.normal_(parameter, 0, 0.5, generator=torch.Generator().manual_seed(1))
    seen = []
    plain.network.get_output_embeddings().register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    wanted, early = [], []
    for row in ROWS:
        ids, decoder, answer_positions = plain.row(soft(row))
        plain.run(ids, decoder, vectors(model, 0))
        states = seen.pop().reshape(len(ids if decoder is None else decoder), -1)
        wanted.append(reader.vectors @ states[answer_positions[0]] + reader.bias)
        early.append(
            reader.vectors
            @ states[answer_positions[0] - 4 if decoder is None else answer_positions[0] - 1]
            + reader.bias
        )
    assert (torch.stack(early) - torch.stack(wanted)).abs().max() > FAR, (
        "reading too early does not show"
    )
    actual = model.scores([*model.encode(1, ROWS), *model.encode(0, ROWS)], rows=5)[len(ROWS) :]
    torch.testing.assert_close(
        torch.stack(actual), torch.stack(wanted), atol=TOLERANCE, rtol=TOLERANCE
    )


@torch.no_grad()
def test_the_vectors_of_a_soft_verbalizer_are_means_over_all_tokens_of_its_words():
    vectors_, bias = (
        torch.randn(9, 4, generator=torch.Generator().manual_seed(0)),
        torch.arange(9.0),
    )
    built = SoftWords.from_words(vectors_, bias, [[[1, 2], [3]], [[0]]])
    torch.testing.assert_close(
        built.vectors, torch.stack([(vectors_[1] + vectors_[2] + vectors_[3]) / 3, vectors_[0]])
    )
    assert built.bias.tolist() == [2, 0] and SoftWords.from_words(
        vectors_, None, [[[1, 2]], [[0]]]
    ).bias.tolist() == [0, 0]
    built.vectors.add_(1)
    assert float(vectors_[0, 0]) != float(built.vectors[1, 0]), (
        "the LM's own vectors would be trained"
    )


# Classification heads.


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_heads_of_all_kinds_in_one_batch(family):
    """At the first token of an input that begins with soft tokens ([CLS], not the first virtual
    token, as in PEFT), a causal LM's last, a decoder's start; or at the answer; of a pair, the sum
    over both orders."""
    templates = {
        "whole": "{soft:5} {a}",
        "bare": "{a} ?",
        "answer": "{a} {soft:2} It was {mask}",
        "pair": "{soft:1} {a} and {b}",
    }
    model, plain = build(
        family,
        *(
            task(name, text, "head", swap=("a", "b") if name == "pair" else None)
            for name, text in templates.items()
        ),
        task("words", SOFT, "words"),
    )
    pieces = [
        lambda row: [0, 1, 2, 3, 4, f" {row['a']}"],
        lambda row: [f"{row['a']} ?"],
        lambda row: [row["a"], 0, 1, " It was"],
        lambda row: [0, f" {row['a']} and {row['b']}"],
    ]
    examples = [
        example for number in range(5) for example in model.encode(number, ROWS, labelled=False)
    ]
    actual = model.scores(examples, rows=7)
    for number, name in enumerate(templates):
        head, soft_vectors = (
            model.bank.readers[model.tasks[number].prompt],
            vectors(model, number) if name != "bare" else None,
        )
        answer = (None,) if name == "answer" else None
        hidden = torch.stack(
            [plain.hidden(pieces[number](row), answer, soft_vectors) for row in ROWS]
        )
        if name == "pair":
            other = torch.stack(
                [
                    plain.hidden(
                        pieces[number]({"a": row["b"], "b": row["a"]}), answer, soft_vectors
                    )
                    for row in ROWS
                ]
            )
            assert (headed(head, hidden) - headed(head, hidden + other)).abs().max() > FAR, (
                "the other order does not show"
            )
            hidden = hidden + other
        wanted = headed(head, hidden)
        torch.testing.assert_close(
            torch.stack(actual[number * len(ROWS) : (number + 1) * len(ROWS)]),
            wanted,
            atol=TOLERANCE,
            rtol=TOLERANCE,
        )
        wrong = []
        for row in ROWS:
            ids, decoder, answer_positions = plain.row(pieces[number](row), answer)
            output = plain.run(ids, decoder, soft_vectors, output_hidden_states=True)
            states = (output.decoder_hidden_states if decoder else output.hidden_states)[-1][0]
            wrong.append(
                headed(
                    head,
                    states[
                        answer_positions[0] + 1
                        if answer_positions[0] == 0 and len(states) > 1
                        else answer_positions[0] - 1
                    ],
                )
            )
        if (plain.kind, answer) != ("encoder-decoder", None) and name != "pair":
            assert (torch.stack(wrong) - wanted).abs().max() > FAR, (
                f"{name}: the place beside it does not show"
            )


@pytest.mark.parametrize("family", ["bert", "deberta", "gpt2", "t5"])
@torch.no_grad()
def test_a_head_over_a_deep_prefix(family):
    """P-tuning v2: a prefix at every layer, and a head without any words."""
    model, _ = build(
        family,
        task("deep", "{prefix:3} {a}", "head", prefix=PrefixSettings(0)),
        task("flat", "{a}", "head"),
    )
    examples = model.encode(0, ROWS, labelled=False) + model.encode(1, ROWS, labelled=False)
    kept, wanted = [], []
    handle = model.lm.forward.gathers[0].register_forward_hook(
        lambda _, __, output: kept.append(output[0])
    )
    for example in examples:
        reference.log_probs(model, example.task, example.fills[0])
        row = example.fills[0].spelt_out() if model.lm.route.in_text else example.fills[0]
        wanted.append(
            headed(
                model.bank.readers[model.tasks[example.task].prompt],
                kept.pop()[0, row.answer_positions[0]],
            )
        )
    handle.remove()
    heads = model.bank.readers
    assert (
        headed(heads[0], torch.ones(32)) - headed(heads[1], torch.ones(32))
    ).abs().max() > FAR and len({str(label_scores.tolist()) for label_scores in wanted}) == len(
        wanted
    )
    torch.testing.assert_close(
        torch.stack(model.scores(examples, rows=5)),
        torch.stack(wanted),
        atol=TOLERANCE,
        rtol=TOLERANCE,
    )


# Prototypes.


def contrast(reader: Prototypes, hidden: torch.Tensor, labels: Sequence[int]) -> torch.Tensor:
    """ProtoVerb's loss of each row, written out: the likeness of two points is the cosine of what
    they are after the projection, times 10; a row is told from the others by those of its label,
    and its label's prototype from the other prototypes."""

    def like(a, b):
        return 10 * torch.dot(a, b) / (a.norm() * b.norm())

    placed, losses = [reader.projection.weight @ state for state in hidden], []
    for i, (state, label) in enumerate(zip(placed, labels)):
        others = [j for j in range(len(placed)) if j != i]
        below = sum(like(state, placed[j]).exp() for j in others)
        same = [-(like(state, placed[j]).exp() / below).log() for j in others if labels[j] == label]
        to_prototypes = [like(state, point).exp() for point in reader.points]
        losses.append(
            (sum(same) / len(same) if same else 0)
            - (to_prototypes[label] / sum(to_prototypes)).log()
        )
    return torch.stack(losses)


@pytest.mark.parametrize("labels", [[0, 1, 2, 0, 0, 1], [0, 1, 2], [1, 1], [2]])
def test_the_contrast_of_prototypes_is_that_of_the_equations(labels):
    """Labels with several rows, with one, and a batch of a single row."""
    torch.manual_seed(len(labels))
    reader, hidden = Prototypes(8, 3, 5), torch.randn(len(labels), 8, requires_grad=True)
    wanted, actual = contrast(reader, hidden, labels), reader.contrast(hidden, torch.tensor(labels))
    torch.testing.assert_close(actual, wanted, atol=TOLERANCE, rtol=TOLERANCE)
    parameters = [hidden, *reader.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(actual.sum(), parameters), torch.autograd.grad(wanted.sum(), parameters)
    ):
        assert theirs.abs().max() > FAR or len(labels) == 1
        torch.testing.assert_close(ours, theirs, atol=10 * TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("family", ["bert", "roberta", "llama", "t5"])
def test_prototypes_in_one_batch_with_others(family):
    """Each task's rows are told from its own other rows alone."""
    model, plain = build(
        family,
        task("one", SOFT, "prototypes"),
        task("two", "{a} and {b} ? {soft:2} {mask}", "prototypes", swap=("a", "b")),
        task("words", SOFT, "words"),
    )
    examples = [example for number in range(3) for example in model.encode(number, ROWS)]
    labels = [LABELS.index(row["label"]) for row in ROWS]
    hidden = [
        torch.stack([plain.hidden(soft(row), (None,), vectors(model, 0)) for row in ROWS]),
        torch.stack(
            [
                plain.hidden([f"{row['a']} and {row['b']} ?", 0, 1], (None,), vectors(model, 1))
                + plain.hidden([f"{row['b']} and {row['a']} ?", 0, 1], (None,), vectors(model, 1))
                for row in ROWS
            ]
        ),
    ]
    wanted = torch.cat(
        [contrast(model.bank.readers[number], hidden[number], labels) for number in range(2)]
    )
    torch.testing.assert_close(
        model.losses(examples)[: 2 * len(ROWS)], wanted, atol=10 * TOLERANCE, rtol=TOLERANCE
    )
    placed = [
        torch.stack(
            [
                torch.nn.functional.cosine_similarity(reader.projection.weight @ state, point, 0)
                * 10
                for point in reader.points
            ]
        )
        for number, reader in enumerate(model.bank.readers[:2])
        for state in hidden[number]
    ]
    torch.testing.assert_close(
        torch.stack(model.scores(examples)[: 2 * len(ROWS)]),
        torch.stack(placed).detach(),
        atol=10 * TOLERANCE,
        rtol=TOLERANCE,
    )


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
@torch.no_grad()
def test_prototypes_start_at_the_means_of_their_labels_rows(family):
    """Of a pair, of what both orders are together; a label without rows stays where chance put
    it."""
    plain = Plain(family)
    for swap in (None, ("a", "b")):
        model = PromptModel(LanguageModel(*tiny.tiny(family)))
        model.add(
            task("t", "{a} and {b} ? {mask}", "prototypes", swap=swap),
            [row for row in ROWS if row["label"] != "other"],
        )
        bare = PromptModel(LanguageModel(*tiny.tiny(family)))
        bare.add(task("t", "{a} and {b} ? {mask}", "prototypes", swap=swap))
        reader, start = model.bank.readers[0], bare.bank.readers[0]
        torch.testing.assert_close(reader.projection.weight, start.projection.weight)
        for number, label in enumerate(LABELS[:2]):
            placed = []
            for row in (row for row in ROWS if row["label"] == label):
                hidden = plain.hidden([f"{row['a']} and {row['b']} ?"], (None,))
                if swap:
                    hidden = hidden + plain.hidden([f"{row['b']} and {row['a']} ?"], (None,))
                point = reader.projection.weight @ hidden
                placed.append(point / point.norm())
            torch.testing.assert_close(
                reader.points[number], torch.stack(placed).mean(0), atol=TOLERANCE, rtol=TOLERANCE
            )
            assert (reader.points[number] - start.points[number]).abs().max() > FAR
        assert torch.equal(reader.points[2], start.points[2])


# All of them.

CASES = [("soft", SOFT), ("prototypes", SOFT), ("head", SOFT), ("head", "{soft:2} {a}")]


@pytest.mark.parametrize("family", ["bert", "electra", "gpt2", "t5"])
def test_all_that_is_trained_gets_a_gradient(family):
    model, _ = build(
        family,
        *(task(f"{number}", text, reader) for number, (reader, text) in enumerate(CASES)),
        task("deep", "{prefix:2} {a}", "head", prefix=PrefixSettings(4)),
    )
    model.losses(
        [example for number in range(5) for example in model.encode(number, ROWS)]
    ).sum().backward()
    for number in range(5):
        trained_parameters = model.bank.parameters_of(model.tasks[number].prompt)
        assert len(trained_parameters) >= 3 and all(
            parameter.grad is not None and parameter.grad.abs().max() > 0
            for parameter in trained_parameters
        )
    assert all(parameter.grad is None for parameter in model.lm.model.parameters())


def test_gradients_of_a_head_are_those_of_a_plain_one():
    model, plain = build("bert", task("t", "{soft:2} {a}", "head"))
    losses, head = model.losses(model.encode(0, ROWS)), model.bank.readers[0]
    hidden = torch.stack(
        [plain.hidden([0, 1, f" {row['a']}"], None, vectors(model, 0)) for row in ROWS]
    )
    wanted = -headed(head, hidden).log_softmax(1)[
        range(len(ROWS)), [LABELS.index(row["label"]) for row in ROWS]
    ]
    torch.testing.assert_close(losses, wanted, atol=TOLERANCE, rtol=TOLERANCE)
    trained_parameters = model.bank.parameters_of(0)
    assert len(trained_parameters) == 5
    for ours, theirs in zip(
        torch.autograd.grad(losses.sum(), trained_parameters),
        torch.autograd.grad(wanted.sum(), trained_parameters),
    ):
        assert theirs.abs().max() > FAR
        torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize(
    "accumulate, tokens", [(1, 10_000), (2, 10_000), (3, 10_000), (1, 1), (2, 25)]
)
def test_a_batch_that_is_cut_teaches_prototypes_the_same(accumulate, tokens, monkeypatch):
    """A row is told from all rows of its task's batch, whichever the LM runs at once."""
    tasks = [
        task("one", SOFT, "prototypes"),
        task("words", SOFT, "words"),
        task("two", "{b} {soft:1} {mask}", "prototypes"),
    ]
    rows = ROWS * 2

    def first_step(*tasks, **more):
        model, _ = build("bert", *tasks)
        kept = {}
        monkeypatch.setattr(
            "ptune.training.loop.PromptTraining.update",
            lambda job: (
                kept.update({job.name: [p.grad.clone() for p in job.parameters]}) or stop(job)
            ),
        )
        config = TrainConfig(batch_size=len(rows), epochs=1, patience=0, **more)
        history = fit(model, dict.fromkeys(range(len(tasks)), (rows, ROWS)), config)
        return {
            f"{name}": (history[number].history[0].loss, kept[name])
            for number, name in enumerate(kept)
        }

    def stop(job):
        job.step += 1

    wanted = first_step(*tasks)
    alone = {name: actual for one in tasks for name, actual in first_step(one).items()}
    monkeypatch.setattr("ptune.model.running.losses.CPU_TOKENS", tokens)
    cut = first_step(*tasks, accumulate=accumulate)
    for name, (loss, gradients) in wanted.items():
        for other in (alone, cut):
            assert other[name][0] == pytest.approx(loss, abs=1e-4), name
            for ours, theirs in zip(other[name][1], gradients):
                torch.testing.assert_close(
                    ours, theirs, atol=1e-4 * max(1, float(theirs.abs().max())), rtol=0
                )


def test_readers_train_together_as_apart():
    """Soft verbalizer, prototypes, head and words in one bank, for four steps; prototypes are told
    from their own batch alone."""
    tasks = [
        task(f"{number}", text, reader)
        for number, (reader, text) in enumerate([*CASES, ("words", SOFT)])
    ]
    config = TrainConfig(batch_size=2, epochs=2, patience=0, learning_rate=1e-2, evaluate_every=4)

    def trained(*some_tasks):
        model, _ = build("bert", *some_tasks)
        before = [
            [parameter.detach().clone() for parameter in model.bank.parameters_of(number)]
            for number in range(len(some_tasks))
        ]
        fit(model, dict.fromkeys(range(len(some_tasks)), (ROWS, ROWS)), config)
        return [model.bank.parameters_of(number) for number in range(len(some_tasks))], before

    together, before = trained(*tasks)
    for number, one_task in enumerate(tasks):
        alone = trained(one_task)[0][0]
        for ours, theirs, start in zip(together[number], alone, before[number]):
            assert (ours - start).abs().max() > FAR
            torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("reader", ["soft", "prototypes", "head"])
def test_a_reader_alone_learns(reader):
    """Without soft tokens: the LM is frozen, and what is trained is the reader."""
    model, _ = build("bert", task("t", "{a} and {b} ? {mask}", reader))
    history = fit(
        model,
        {0: (ROWS, ROWS)},
        TrainConfig(batch_size=4, epochs=40, patience=0, learning_rate=1e-2),
    )[0].history
    assert history[-1].loss < 0.5 * history[0].loss and history[-1].dev == 1


def test_dropout_of_a_head_belongs_to_an_lm_that_is_tuned():
    for tune, wanted in (("prompt", False), ("both", True)):
        model, _ = build("bert", task("t", "{soft:2} {a}", "head"))
        modes = []
        model.bank.readers[0].register_forward_hook(
            lambda module, *_, modes=modes: modes.append((module.training, torch.is_grad_enabled()))
        )
        fit(model, {0: (ROWS, ROWS)}, TrainConfig(batch_size=4, epochs=2, patience=0), tune=tune)
        assert {training for training, learning in modes if learning} == {wanted} and {
            training for training, learning in modes if not learning
        } == {False}
        scores = model.scores(model.encode(0, ROWS))
        assert all(map(torch.equal, scores, model.scores(model.encode(0, ROWS))))


def test_starting_points_follow_from_name_and_seed():
    def points(**more):
        return [
            value
            for reader in ("head", "prototypes")
            for value in build("bert", task("t", SOFT, reader, **more))[0]
            .bank.readers[0]
            .state_dict()
            .values()
        ]

    assert all(map(torch.equal, points(seed=3), points(seed=3))) and not any(
        torch.equal(a, b) for a, b in zip(points(seed=3), points(seed=4))
    )


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
@pytest.mark.parametrize("reader, template", CASES)
def test_a_saved_reader_scores_exactly_as_before(family, reader, template, tmp_path):
    model, _ = build(family, task("t", template, reader, swap=("a", "b")))
    for parameter in model.bank.readers[0].parameters():
        torch.nn.init.normal_(
            parameter, 0, 0.5, generator=torch.Generator().manual_seed(parameter.numel())
        )
    prompt_folder.save(model, tmp_path)
    loaded = prompt_folder.load(tmp_path, model.lm)
    assert all(
        map(torch.equal, model.scores(model.encode(0, ROWS)), loaded.scores(loaded.encode(0, ROWS)))
    )
    assert loaded.tasks[0].task == model.tasks[0].task


@pytest.mark.parametrize(
    "reader, part", [("soft", "vectors"), ("prototypes", "points"), ("head", "dense.weight")]
)
def test_a_damaged_reader_is_refused(reader, part, tmp_path):
    model, _ = build("bert", task("t", SOFT, reader))
    prompt_folder.save(model, tmp_path)
    file = tmp_path / "prompt.safetensors"
    tensors = files.read_tensors(file)
    for damaged in (tensors[f"reader.{part}"][:-1], tensors[f"reader.{part}"].T.contiguous(), None):
        changed = {name: value for name, value in tensors.items() if name != f"reader.{part}"} | (
            {} if damaged is None else {f"reader.{part}": damaged}
        )
        files.write_tensors(file, changed)
        if damaged is not None and damaged.shape == tensors[f"reader.{part}"].shape:
            continue
        with pytest.raises(StoreError, match="reader part"):
            prompt_folder.load(tmp_path, model.lm)
    files.write_tensors(file, tensors | {"reader.more": torch.zeros(1)})
    with pytest.raises(StoreError, match="reader part"):
        prompt_folder.load(tmp_path, model.lm)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(StoreError, match="damaged"):
        prompt_folder.load(tmp_path, model.lm)


def test_readers_that_have_nothing_to_read():
    model = PromptModel(LanguageModel(*tiny.tiny("bert")))
    for reader in ("soft", "prototypes"):
        with pytest.raises(TemplateError, match="has no {mask}"):
            model.add(task("t", "{soft:2} {a}", reader))
    with pytest.raises(ConfigError, match="nothing for a reader"):
        PromptModel(LanguageModel(*tiny.tiny("gpt2"))).add(
            Task("t", Template.parse("{a} {mask}"), None, reader=READERS["soft"])
        )
    with pytest.raises(ConfigError, match="reads by head"):
        model.add(task("t", "{a}", "head", domain=Template.parse("It was {mask}")))
    with pytest.raises(ConfigError, match="no label words"):
        model.add(task("t", "{soft:2} {a}", "head", init="labels"), ROWS)
    with pytest.raises(VerbalizerError, match="not in this LM's vocabulary"):
        model.add(
            Task(
                "t",
                Template.parse("{a} {mask}"),
                Verbalizer.from_words({"a": "\u4e2d", "b": "No"}),
                reader=READERS["soft"],
            )
        )
    model.add(
        Task(
            "t",
            Template.parse("{a}"),
            Verbalizer.from_words({"\u4e2d": "\u4e2d", "b": "b"}),
            reader=READERS["head"],
        )
    )
    with pytest.raises(ConfigError, match="ends with its {prefix}"):
        PromptModel(LanguageModel(*tiny.tiny("gpt2"))).add(task("t", "{a} {prefix:3}", "head"))
    assert len(model.bank) == len(model.tasks) == 1, "a task that was refused left something behind"


def test_an_lm_without_vectors_of_its_words_has_no_soft_verbalizer(monkeypatch):
    model = PromptModel(LanguageModel(*tiny.tiny("bert")))
    monkeypatch.setattr(LanguageModel, "vocabulary", None)
    with pytest.raises(ModelError, match="nothing to stand for"):
        model.add(task("t", SOFT, "soft"))
