"""The methods of the papers, as rows of one table: which template, how the vectors are made, what
is trained, and how.

Numbers that are a paper's or its code's are marked; the others are ours, and let the default probe
end in two minutes on two cores.
"""

from dataclasses import dataclass
from typing import Literal

from ptune.errors import ConfigError, nearest
from ptune.settings import EncoderName, ReaderName, TrainConfig

# Where rows are so few that an epoch has two or three steps, patience and length count in steps.
LEAST = 100  # steps of a training at least
WAITED = 30  # steps without a gain before it stops
AUTO = "tries several of these on the labelled rows (--minutes), and takes the best"
SENTENCE = "The capital of Austria, on the Danube, is Vienna."  # what a prefix may begin as
AUTO_NAME = "auto"
PET = ("pet", "ipet")
What = Literal["nothing", "prompt", "head", "lm", "both"]


@dataclass(frozen=True)
class Method:
    """A way to make a frozen LM do a task.

    Attributes:
        template: "manual" for the task's own wording, else a template.
        tune: what is trained.
        encoder, init: how soft vectors are made and begin, where the template has any.
        hidden: width of the MLP that makes a deep prefix, where the template has one; 0 for none.
        prefix_init: what a deep prefix begins as: random values, or the words of a text.
        frame: its template in a task with hand-written patterns: "<pattern>" is one of those,
            "<soft pattern>" one with soft tokens for its words,
            "<template>" the task's own with soft tokens, "<inputs>" the fields alone, as a pair
            where there are two.
        reader: what reads the labels, a name of ``ptune.READERS``; None as the task says it.
        pooling: what a trained head reads of an input: its first token, or the mean of all.
        about: what it is, in a line of ``ptune methods``.
    """

    name: str
    title: str
    template: str
    tune: What
    train: TrainConfig = TrainConfig()
    encoder: EncoderName = "lstm"
    init: str = "random"
    hidden: int = 512
    prefix_init: str = "random"
    frame: str = "<pattern>"
    reader: ReaderName | None = None
    pooling: Literal["first", "mean"] = "first"
    about: str = ""

    @property
    def takes_pattern(self) -> bool:
        """Whether its template is made of one hand-written pattern."""
        return "<pattern>" in self.frame or self.trains_words

    @property
    def trains_words(self) -> bool:
        """Whether soft tokens take the place of the pattern's words."""
        return "<soft pattern>" in self.frame


FINE_TUNING = TrainConfig(
    lm_learning_rate=5e-5,
    weight_decay=0.01,
    batch_size=16,
    epochs=10,
    least_steps=LEAST,
    warmup=0.06,
    decay="linear",
    patience=3,
    patience_steps=WAITED,
)
# The LM and new parameters beside it, a prompt's or a head's.
FINE_TUNING_AND_MORE = FINE_TUNING.model_copy(update={"learning_rate": 1e-3, "patience": 5})
PET_MEMBERS = TrainConfig(
    lm_learning_rate=5e-5,
    weight_decay=0.01,
    batch_size=16,
    steps=250,
    decay="linear",
    patience=0,
)
METHODS = {
    method.name: method
    for method in (
        # MP: LAMA's wording, nothing trained (P-tuning, section 4.1, "MP").
        Method(
            "manual",
            "Manual prompt",
            "manual",
            "nothing",
            about="a hand-written prompt, asked as it is",
        ),
        # P-tuning, section 3: template (3, sub, 3, obj, 3), BiLSTM + MLP, the LM frozen. Its LAMA
        # code trains for 100 epochs with
        # Adam at 1e-5, decayed by 0.98 an epoch, L2 of 5e-4, batches of 8, patience 20; a larger
        # rate gets there in fewer epochs.
        Method(
            "p-tuning",
            "P-tuning",
            "(3, 3, 3)",
            tune="prompt",
            train=TrainConfig(
                optimiser="adam",
                learning_rate=1e-3,
                batch_size=16,
                epochs=25,
                least_steps=LEAST,
                decay="exponential",
                patience=6,
                patience_steps=WAITED,
            ),
            frame="<template>",
            about="soft tokens among the words, made by a BiLSTM while they are trained",
        ),
        # OptiPrompt (Zhong et al. 2021, section 4): the vectors of the hand-written prompt's words
        # are trained directly, by Adam in batches of 16 with a tenth of warm-up. Its rate of 3e-3
        # learns few rows by heart.
        Method(
            "optiprompt",
            "OptiPrompt",
            "manual",
            tune="prompt",
            train=TrainConfig(
                optimiser="adam",
                learning_rate=1e-3,
                batch_size=16,
                epochs=25,
                least_steps=LEAST,
                warmup=0.1,
                decay="linear",
                patience=6,
                patience_steps=WAITED,
            ),
            encoder="table",
            frame="<soft pattern>",
            about="the words of the hand-written prompt, trained from where they are",
        ),
        # P-tuning on SuperGLUE (section 4.2): prompt and LM are tuned; its few-shot code takes
        # AdamW at 1e-5 for the LM, 1e-4 or 1e-5 for the
        # prompt, linear decay, batches of 16, and looks at dev every 20 steps.
        Method(
            "p-tuning+lm",
            "P-tuning, LM tuned",
            "(3, 3, 3)",
            tune="both",
            train=FINE_TUNING_AND_MORE,
            frame="<template>",
            about="soft tokens among the words, and the LM with them",
        ),
        # FT: the subject alone, the LM tuned (P-tuning, section 4.1, "FT").
        Method(
            "fine-tune",
            "Fine-tuning",
            "{subject} {mask}",
            tune="lm",
            train=FINE_TUNING,
            about="the LM, on the row's fields and a mask",
        ),
        # MP+FT: LAMA's wording, the LM tuned.
        Method(
            "manual+fine-tune",
            "Manual prompt + fine-tuning",
            "manual",
            tune="lm",
            train=FINE_TUNING,
            about="the LM, on a hand-written prompt",
        ),
        # Fine-tuning as of BERT (section 3.2): a new head on the first token.
        Method(
            "head",
            "Fine-tuning with a head",
            "{subject}",
            tune="both",
            train=FINE_TUNING_AND_MORE,
            frame="<inputs>",
            reader="head",
            about="the LM with a new classification head",
        ),
        # PET, section 4: every pattern by itself, AdamW at 1e-5, batches of 16 (2 x 8), 250 steps;
        # then a classifier from their soft labels.
        Method(
            "pet",
            "PET",
            "manual",
            tune="lm",
            train=PET_MEMBERS,
            about="an ensemble of patterns labels unlabelled rows, and a classifier learns from "
            "those",
        ),
        # iPET, section 3.4: three generations, each with five times the rows.
        Method(
            "ipet",
            "iPET",
            "manual",
            tune="lm",
            train=PET_MEMBERS,
            about="PET in generations that learn from each other",
        ),
        # BERT's next-sentence head, asked as it is.
        Method(
            "next-sentence",
            "Next-sentence head",
            "{subject}",
            "nothing",
            frame="<inputs>",
            reader="pair",
            about="BERT's next-sentence head, asked as it is",
        ),
        # Prefix-Tuning, section 4: keys and values at every layer, made by an MLP of 512. Its
        # table-to-text runs take AdamW, a linear decay
        # without warm-up, 5 epochs in batches of 5 to 10 at 5e-5 to 8e-5 with GPT-2 medium; a small
        # LM and few rows want a larger rate.
        Method(
            "prefix-tuning",
            "Prefix-Tuning",
            "{prefix:5} {subject} {mask}",
            tune="prompt",
            train=TrainConfig(
                learning_rate=1e-3,
                batch_size=8,
                epochs=5,
                least_steps=LEAST,
                decay="linear",
                patience=0,
            ),
            encoder="table",
            frame="{prefix:5} <pattern>",
            about="keys and values at every layer, made by an MLP while trained; for written text",
        ),
        # Prompt Tuning, section 3.2: vectors before the input, from frequent tokens; Adafactor at a
        # constant 0.3, batches of 32.
        Method(
            "prompt-tuning",
            "Prompt Tuning",
            "{soft:100} {subject} {mask}",
            tune="prompt",
            train=TrainConfig(
                optimiser="adafactor",
                learning_rate=0.3,
                weight_decay=1e-5,
                batch_size=32,
                epochs=20,
                least_steps=LEAST,
                clip=0,
                patience=0,
            ),
            encoder="table",
            init="vocabulary",
            frame="{soft:20} <pattern>",
            about="soft tokens before the input, by Adafactor at 0.3, as in the paper",
        ),
        Method(
            "prompt-tuning-adamw",
            "Prompt Tuning (AdamW)",
            "{soft:100} {subject} {mask}",
            tune="prompt",
            train=TrainConfig(
                learning_rate=5e-2,
                batch_size=32,
                epochs=20,
                least_steps=LEAST,
                decay="linear",
                patience=0,
            ),
            encoder="table",
            init="vocabulary",
            frame="{soft:20} <pattern>",
            about="soft tokens before the input, by AdamW, which small LMs and few rows want",
        ),
        # P-tuning v2: keys and values at every layer of an encoder, trained directly; 5e-3 to 1e-2
        # and up to 120 epochs in its scripts.
        Method(
            "p-tuning-v2",
            "P-tuning v2",
            "{prefix:8} {subject} {mask}",
            tune="prompt",
            train=TrainConfig(
                learning_rate=3e-2,
                batch_size=16,
                epochs=25,
                least_steps=LEAST,
                decay="linear",
                patience=6,
                patience_steps=WAITED,
            ),
            encoder="table",
            hidden=0,
            frame="{prefix:8} <pattern>",
            about="keys and values at every layer, trained directly",
        ),
        Method(
            "p-tuning-v2+head",
            "P-tuning v2 with a head",
            "{prefix:8} {subject}",
            tune="prompt",
            train=TrainConfig(
                learning_rate=1e-2,
                batch_size=16,
                epochs=25,
                least_steps=LEAST,
                decay="linear",
                patience=6,
                patience_steps=WAITED,
            ),
            encoder="table",
            hidden=0,
            frame="{prefix:8} <inputs>",
            reader="head",
            about="keys and values at every layer, and a classification head that reads the LM",
        ),
        # What every course teaches first: nothing of the LM is changed.
        Method(
            "regression",
            "Logistic regression",
            "{subject}",
            "nothing",
            frame="<inputs>",
            reader="linear",
            pooling="mean",
            about="logistic regression on the LM's vectors, as they are",
        ),
        # SetFit (Tunstall et al. 2022, section 3) tunes a sentence encoder on pairs of rows, and
        # fits a logistic regression on its vectors; here a prefix is tuned, and the encoder stays.
        # All pairs of a batch are compared, where SetFit draws some. Loss, length, rate, epochs and
        # batch were chosen on rows of TREC's and MR's training files.
        Method(
            "contrastive",
            "Contrastive prompt",
            "{prefix:16} {subject}",
            tune="prompt",
            train=TrainConfig(
                learning_rate=1e-2,
                batch_size=32,
                epochs=20,
                steps=300,
                evaluate_every=20,
                decay="linear",
                patience=0,
            ),
            encoder="table",
            hidden=0,
            prefix_init=SENTENCE,
            frame="{prefix:16} <inputs>",
            reader="linear",
            pooling="mean",
            about="logistic regression behind a prefix that draws rows of one label together",
        ),
    )
}


def method(name: str) -> Method:
    """The method of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in METHODS:
        raise ConfigError(f"There is no method {name!r}. {nearest(name, METHODS)}")
    return METHODS[name]


def table() -> str:
    """All methods, one a line: the name, what it trains, and what it is."""
    rows = [("method", "trains", "what it is"), (AUTO_NAME, "the best's", AUTO)]
    rows += [(name, _trained(preset), preset.about) for name, preset in METHODS.items()]
    width, of_trained = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"{name:{width}}  {what:{of_trained}}  {about}" for name, what, about in rows)


def described(name: str) -> str:
    """One method: what it is, what it trains, and the settings of its training as keys of a task's
    file.

    Raises:
        ConfigError: there is no such method.
    """
    if name == AUTO_NAME:
        return f"{name}: {AUTO}"
    preset = method(name)
    lines = [f"{name}: {preset.about}", f"trains: {_trained(preset)}"]
    if preset.tune in ("prompt", "both") and not preset.reader:
        lines += [f"encoder: {preset.encoder}", f"init: {preset.init}"]
    if preset.tune != "nothing":
        settings = preset.train.model_dump(exclude_unset=True)
        lines += ["train:", *(f"  {key}: {value}" for key, value in settings.items())]
    return "\n".join(lines)


def _trained(preset: Method) -> str:
    """What a method trains, in words."""
    trained = {
        "nothing": "a regression" if preset.reader == "linear" else "nothing",
        "prompt": "prompt",
        "head": "LM's head",
        "lm": "LM",
        "both": "prompt and LM",
    }
    if preset.reader and preset.tune in ("prompt", "both"):
        return f"{'prompt' if preset.tune == 'prompt' else 'LM'} and head"
    return trained[preset.tune]
