"""The methods with the settings of their papers, which were made for larger LMs and more steps than
ours (``methods.py``): ``preset: paper``."""

from dataclasses import replace

from ptune.errors import ConfigError
from ptune.settings import PetConfig, Preset, TrainConfig, TrainOverrides
from ptune.training.methods import METHODS, Method
from ptune.training.methods import method as method_of

# PET (Schick and Schütze 2021a), section 4 and appendix B: AdamW at 1e-5 with a linear fall, 16
# rows a step, 250 steps; the auxiliary loss of telling hidden words with the weight 1e-4.
_PET = TrainConfig(
    lm_learning_rate=1e-5,
    learning_rate=1e-5,
    weight_decay=0.01,
    batch_size=16,
    steps=250,
    decay="linear",
    patience=0,
    auxiliary=1e-4,
)
PAPER = {
    # P-tuning's LAMA code: Adam at 1e-5, times 0.98 an epoch, L2 of 5e-4, 8 rows a step, at most
    # 100 epochs, patience 20.
    "p-tuning": replace(
        METHODS["p-tuning"],
        train=TrainConfig(
            optimiser="adam",
            learning_rate=1e-5,
            weight_decay=5e-4,
            batch_size=8,
            epochs=100,
            decay="exponential",
            patience=20,
        ),
    ),
    # OptiPrompt's code: Adam at 3e-3, a tenth of warm-up and a linear fall, 16 rows a step, 10
    # epochs.
    "optiprompt": replace(
        METHODS["optiprompt"],
        train=TrainConfig(
            optimiser="adam",
            learning_rate=3e-3,
            batch_size=16,
            epochs=10,
            warmup=0.1,
            decay="linear",
            patience=0,
        ),
    ),
    # P-tuning's few-shot code: AdamW at 1e-5 for the LM and 1e-4 for the prompt, a linear fall, 16
    # rows a step, a look at dev every 20 steps. How many steps differs by task; 250 are PET's.
    "p-tuning+lm": replace(
        METHODS["p-tuning+lm"],
        train=TrainConfig(
            learning_rate=1e-4,
            lm_learning_rate=1e-5,
            weight_decay=0.01,
            batch_size=16,
            steps=250,
            evaluate_every=20,
            decay="linear",
            patience=0,
        ),
    ),
    # Prompt Tuning, section 3: 100 soft tokens that begin as class labels, Adafactor at a constant
    # 0.3 with a weight decay of 1e-5, 32 rows a step, 30,000 steps, the best state on dev.
    "prompt-tuning": replace(
        METHODS["prompt-tuning"],
        frame="{soft:100} <pattern>",
        init="labels",
        train=TrainConfig(
            optimiser="adafactor",
            learning_rate=0.3,
            weight_decay=1e-5,
            batch_size=32,
            steps=30_000,
            evaluate_every=500,
            clip=0,
            patience=0,
        ),
    ),
    # Prefix-Tuning, on E2E: AdamW at 8e-5 with a linear fall, 10 rows a step, 5 epochs, a prefix of
    # 5 made by an MLP of 512.
    "prefix-tuning": replace(
        METHODS["prefix-tuning"],
        train=TrainConfig(learning_rate=8e-5, batch_size=10, epochs=5, decay="linear", patience=0),
    ),
    "pet": replace(METHODS["pet"], train=_PET),
    "ipet": replace(METHODS["ipet"], train=_PET),
}
# PET, section 4: three trainings of each pattern, answers at a temperature of 2, and 5,000 steps
# of the classifier; iPET, section 3.4: three generations, each with five times the rows, labelled
# by a quarter of the others.
PAPER_PET = PetConfig(
    repetitions=3,
    temperature=2,
    growth=5,
    share=0.25,
    held_out=0,
    distil=TrainOverrides(
        learning_rate=1e-5,
        lm_learning_rate=1e-5,
        weight_decay=0.01,
        batch_size=16,
        steps=5000,
        decay="linear",
        patience=0,
    ),
)


def preset_method(name: str, preset: Preset | None) -> Method:
    """A method with our settings, or with those of its paper ("paper"). One that trains nothing has
    no settings, and is the same by both.

    Raises:
        ConfigError: there is none, or its paper's settings are not known here.
    """
    method = method_of(name)
    if preset != "paper" or method.tune == "nothing":
        return method
    if name not in PAPER:
        raise ConfigError(
            f"There are no paper's settings of {name} here; there are some of "
            f"{', '.join(PAPER)}. Leave preset out, and set what you want under train."
        )
    return PAPER[name]


def preset_pet(settings: PetConfig, preset: Preset | None) -> PetConfig:
    """How PET goes about it: by our settings, or by its paper's, in which those stay that were
    set."""
    if preset != "paper":
        return settings
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return PAPER_PET.model_copy(update=given)
