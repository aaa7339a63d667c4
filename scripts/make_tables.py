"""Write tables with texts that say the same, for the built-in causal LM to learn from how a table
becomes sentences.

    python scripts/make_tables.py src/ptune/builtin/facts TABLES.txt [NUMBER]

One table a document, on one line, with its text behind it:

    name: Peru | capital: Lima = Peru is governed from Lima.

Countries are those of the training rows of the fact table alone. Every other one has values of
others, or is none, so that the table decides what the text says and not what is known. Of the
sentences in examples/countries one alone is worded as here: Peru lies in America.
"""

import json
import pathlib
import random
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

NUMBER = 40_000
SUBJECTS = ("country", "country", "name", "state")
JOINTS = (" = ", " = ", " = ", " -> ", " Text: ", " In words: ")
FORMS = (
    ("{}: {}", " | "),
    ("{}: {}", " | "),
    ("{}: {}", ", "),
    ("{}: {}", "; "),
    ("{} = {}", "; "),
)
INVENTED = 0.5  # the share of tables whose values are those of others

# What each field may be called, and what a text may say of the subject by its value.
Field = tuple[tuple[str, ...], tuple[str, ...]]
FIELDS: dict[str, Field] = {
    "P36": (
        ("capital", "capital", "capital city", "seat"),
        (
            "is governed from {}",
            "has the capital {}",
            "has its government in {}",
            "has {} as its capital",
            "counts {} as its capital city",
        ),
    ),
    "P30": (
        ("continent", "continent", "part of the world"),
        (
            "is a country in {}",
            "lies in {}",
            "belongs to {}",
            "is one of the lands of {}",
            "is found in {}",
        ),
    ),
    "P37": (
        ("language", "language", "official language", "speech"),
        (
            "speaks {}",
            "has {} as its language",
            "writes its laws in {}",
            "uses {} in its schools",
        ),
    ),
    "P38": (
        ("currency", "currency", "money"),
        (
            "pays in {}",
            "uses the {}",
            "has the {} as its money",
            "counts its money in {}",
            "sells and buys for {}",
        ),
    ),
    "P140": (
        ("religion", "faith"),
        ("is mostly {}", "has a {} majority", "is by faith {}"),
    ),
    "P122": (
        ("government", "form of government", "state"),
        ("is a {}", "has the government of a {}", "is ruled as a {}"),
    ),
    "P1549": (
        ("people", "adjective", "nationality"),
        ("calls its people {}", "has citizens that are called {}", "is the {} land"),
    ),
    "export-commodity": (
        ("export", "main export", "goods"),
        ("exports {}", "sells {} to the world", "earns its money with {}"),
    ),
    "export-partner": (
        ("partner", "export partner", "trade"),
        ("sells most to {}", "trades with {}", "sends its goods to {}"),
    ),
    "climate": (
        ("climate", "weather"),
        ("has a {} climate", "has {} weather", "is {} all the year"),
    ),
    "head-of-state": (
        ("head of state", "head"),
        ("is headed by a {}", "has a {} at its head", "obeys a {}"),
    ),
    "P47": (
        ("neighbour", "neighbour", "border"),
        ("borders {}", "lies beside {}", "has a border with {}"),
    ),
}


@dataclass(frozen=True)
class Countries:
    """What tables are made of.

    Attributes:
        known: the values of each country of the training rows.
        values: of each field all values that there are, those of the other rows too.
        names: what an invented country may be called: no name of a country of the other rows.
    """

    known: Mapping[str, Mapping[str, str]]
    values: Mapping[str, list[str]]
    names: list[str]

    def row(self, draw: random.Random) -> tuple[str, dict[str, str]]:
        """A country and its values, or invented ones."""
        name = draw.choice(sorted(self.known))
        if draw.random() >= INVENTED:
            return name, dict(self.known[name])
        name = draw.choice((name, draw.choice(self.names)))
        return name, {key: draw.choice(values) for key, values in self.values.items()}


def rows_of(facts: pathlib.Path, relation: str, *splits: str) -> list[dict[str, str]]:
    """The facts of a relation."""
    paths = [facts / "original" / relation / f"{split}.jsonl" for split in splits]
    lines = (line for path in paths for line in path.read_text(encoding="utf-8").splitlines())
    return [json.loads(line) for line in lines]


def countries(facts: pathlib.Path) -> Countries:
    """What the fact table holds."""
    known: dict[str, dict[str, str]] = {}
    values: dict[str, list[str]] = {}
    others: set[str] = set()
    for relation in FIELDS:
        for row in rows_of(facts, relation, "train"):
            known.setdefault(row["sub_label"], {})[relation] = row["obj_label"]
        others |= {row["sub_label"] for row in rows_of(facts, relation, "dev", "test")}
        rows = rows_of(facts, relation, "train", "dev", "test")
        values[relation] = sorted({row["obj_label"] for row in rows})
    places = {name for key in ("P36", "P1549", "P47") for name in values[key]}
    return Countries(known, values, sorted(places - others))


def said(pattern: str, key: str) -> str:
    """A wording with the place of a field's value by the field's name."""
    return pattern.replace("{}", f"{{{key}}}")


def by_predicates(keys: list[str], draw: random.Random) -> str:
    """Sentences in which the subject has what is said of it, a few values in each; it is named in
    the first, and in the others named or called it."""
    says = [said(draw.choice(FIELDS[key][1]), key) for key in keys]
    sentences: list[str] = []
    while says:
        taken, says = says[: (count := draw.choice((1, 1, 2, 2, 3)))], says[count:]
        who = "{subject}" if not sentences or draw.random() < 0.3 else "It"
        listed = ", ".join(taken[:-1]) + " and " + taken[-1] if len(taken) > 1 else taken[0]
        sentences.append(f"{who} {listed}.")
    return " ".join(sentences)


def by_names(keys: list[str], names: Mapping[str, str], draw: random.Random) -> str:
    """Sentences that say the fields by their names."""
    parts, rest = [], list(keys)
    if len(keys) > 1 and draw.random() < 0.7:
        first, key, *rest = keys
        name, value = names[first], f"{{{first}}}"
        predicate = said(draw.choice(FIELDS[key][1]), key)
        parts.append(
            draw.choice(
                (
                    f"With {value} as the {name}, {{subject}} {predicate}.",
                    f"{{subject}} ({name}: {value}) {predicate}.",
                    f"{{subject}}, whose {name} is {value}, {predicate}.",
                    f"What of {{subject}}? The {name} is {value}, and it {predicate}.",
                )
            )
        )
    for key in rest:
        name, value = names[key], f"{{{key}}}"
        parts.append(
            draw.choice(
                (
                    f"The {name} of {{subject}} is {value}.",
                    f"The {name} is {value}.",
                    f"{value} is the {name} of {{subject}}.",
                    f"As for the {name}, it is {value}.",
                    f"The {name} there is {value}, as everybody knows.",
                    f"In {{subject}} the {name} is {value}.",
                    f"It has {value} as its {name}.",
                )
            )
        )
    return " ".join(parts)


def document(world: Countries, draw: random.Random) -> str:
    """A table with its text."""
    subject, values = world.row(draw)
    keys = draw.sample(sorted(values), min(len(values), draw.choice((1, 2, 3, 4, 4, 5))))
    names = {key: draw.choice(FIELDS[key][0]) for key in keys}
    form, between = draw.choice(FORMS)
    cells = [(draw.choice(SUBJECTS), "subject"), *((names[key], key) for key in keys)]
    if draw.random() < 0.1:
        draw.shuffle(cells)
    table = between.join(form.format(name, f"{{{key}}}") for name, key in cells)
    order = draw.sample(keys, len(keys)) if draw.random() < 0.5 else keys
    by_name = draw.random() < 0.4
    text = by_names(order, names, draw) if by_name else by_predicates(order, draw)
    whole = {**values, "subject": subject}
    written = re.sub(
        r"(^|[.?] )([a-z])",
        lambda match: match[1] + match[2].upper(),
        text.format_map(whole),
    )
    return table.format_map(whole) + draw.choice(JOINTS) + written


def main(facts: pathlib.Path, out: pathlib.Path, number: str = str(NUMBER)) -> None:
    world, draw = countries(facts), random.Random(0)
    lines = [document(world, draw) for _ in range(int(number))]
    out.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} tables, {sum(len(line.split()) for line in lines)} words")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(*map(pathlib.Path, sys.argv[1:3]), *sys.argv[3:])
