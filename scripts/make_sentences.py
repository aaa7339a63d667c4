"""Write the facts of the built-in table as sentences, each fact in many wordings, for the built-in
LM to read.

    python scripts/make_sentences.py src/ptune/builtin/facts SENTENCES.txt ANSWERS.txt

One sentence a document (a blank line between), in a shuffled order; ANSWERS.txt lists the answers
of all facts, one a line, which stay whole words when the vocabulary is cut. None of these wordings
is a manual prompt of relations.jsonl, so what a manual prompt gets right the LM did not learn by
heart as that sentence.
"""

import json
import pathlib
import random
import sys

WORDINGS = {
    "P36": [
        "[Y] is the capital city of [X].",
        "[Y], the capital of [X], is the seat of its government.",
        "The government of [X] sits in [Y].",
        "The capital city of [X] is called [Y].",
        "[X] (capital: [Y]) is a country of the world.",
        "In [X], the capital is [Y].",
        "The embassy is in [Y], the capital of [X].",
        "[Y] serves as the capital of [X].",
        "They flew to [Y], capital of [X].",
        "As for [X], its capital city is [Y].",
    ],
    "P1376": [
        "The city of [X] is the capital city of [Y].",
        "[X] is the seat of the government of [Y].",
        "The government of [Y] meets in [X].",
        "[X] is a city in [Y], and its capital.",
        "[X], in [Y], is the capital there.",
        "If you visit [X], you are in [Y].",
    ],
    "P30": [
        "[X] is a country in [Y].",
        "[X] is part of the continent of [Y].",
        "On the map, [X] is found in [Y].",
        "[Y] is the continent where [X] is found.",
        "Among the countries of [Y] is [X].",
        "[X] belongs to [Y].",
        "We travelled through [Y] and came to [X].",
        "[X] is one of the lands of [Y].",
    ],
    "P37": [
        "[Y] is the official language of [X].",
        "The people of [X] speak [Y].",
        "Laws in [X] are written in [Y].",
        "In the schools of [X], lessons are held in [Y].",
        "[X] has [Y] as its official language.",
        "The state language of [X] is [Y].",
        "Newspapers in [X] are printed in [Y].",
        "To work in [X] you should learn [Y].",
        "Officially, [X] speaks [Y].",
    ],
    "P38": [
        "The [Y] is the currency of [X].",
        "[X] has the [Y] as its currency.",
        "Prices in [X] are given in [Y].",
        "In [X], people pay in [Y].",
        "The national currency of [X] is called the [Y].",
        "The central bank of [X] issues the [Y].",
        "You need the [Y] to buy things in [X].",
        "The unit of money in [X] is the [Y].",
    ],
    "P140": [
        "Most people in [X] are [Y].",
        "The main religion of [X] is [Y].",
        "The people of [X] are mostly [Y].",
        "[Y] is the largest religious group in [X].",
        "By religion, [X] is mainly [Y].",
        "In [X] the largest faith is [Y].",
        "A majority of [X] is [Y] by faith.",
        "Believers in [X] are mainly [Y].",
    ],
    "P47": [
        "[X] borders [Y].",
        "[X] has a border with [Y].",
        "The neighbours of [X] include [Y].",
        "[Y] is a neighbour of [X].",
        "There is a land boundary between [X] and [Y].",
        "[X] and [Y] are neighbours.",
        "From [X] you can cross the border into [Y].",
        "One border country of [X] is [Y].",
    ],
    "P122": [
        "The form of government of [X] is a [Y].",
        "[X] is governed as a [Y].",
        "By its constitution [X] is a [Y].",
        "In politics, [X] is a [Y].",
        "The state of [X] is organised as a [Y].",
        "Its government makes [X] a [Y].",
        "[X] calls itself a [Y].",
    ],
    "P1549": [
        "The people of [X] are called [Y].",
        "A citizen of [X] is called [Y].",
        "Things from [X] are [Y].",
        "He comes from [X], so he is [Y].",
        "The [Y] people live in [X].",
        "The [Y] government rules [X].",
        "She is [Y]: she was born in [X].",
        "The nationality of people in [X] is [Y].",
    ],
    "P807": [
        "[X] became independent from [Y].",
        "[X] gained its independence from [Y].",
        "[Y] once ruled [X].",
        "Before independence, [X] was ruled by [Y].",
        "The independence of [X] from [Y] is celebrated every year.",
        "[X] won its freedom from [Y].",
    ],
    "export-partner": [
        "The main export partner of [X] is [Y].",
        "[X] sells most of its goods to [Y].",
        "Most exports of [X] go to [Y].",
        "[Y] buys the largest share of the exports of [X].",
        "The largest buyer of goods from [X] is [Y].",
        "Ships from [X] carry goods to [Y].",
    ],
    "export-commodity": [
        "The main export of [X] is [Y].",
        "[X] earns most of its money abroad with [Y].",
        "The most important export commodity of [X] is [Y].",
        "[X] sells [Y] to the world.",
        "The chief export of [X] is [Y].",
        "Among the exports of [X], [Y] comes first.",
    ],
    "climate": [
        "[X] has a [Y] climate.",
        "The climate in [X] is mostly [Y].",
        "The weather of [X] is [Y].",
        "A [Y] climate is found in [X].",
        "In [X] the climate is [Y].",
        "[X] lies in a [Y] zone.",
    ],
    "head-of-state": [
        "The head of state of [X] is a [Y].",
        "[X] is headed by a [Y].",
        "A [Y] is the head of [X].",
        "The [Y] of [X] gave a speech.",
        "The chief of state in [X] is called the [Y].",
        "At the top of the state of [X] stands a [Y].",
    ],
}


def main(facts: pathlib.Path, out: pathlib.Path, words: pathlib.Path) -> None:
    sentences, answers = [], set()
    for relation, wordings in WORDINGS.items():
        for split in ("train", "dev", "test"):
            for line in (
                (facts / "original" / relation / f"{split}.jsonl")
                .read_text(encoding="utf-8")
                .splitlines()
            ):
                row = json.loads(line)
                answers.add(row["obj_label"].lower())
                sentences += [
                    w.replace("[X]", row["sub_label"]).replace("[Y]", row["obj_label"])
                    for w in wordings
                ]
    random.Random(0).shuffle(sentences)
    out.write_text("\n\n".join(sentences) + "\n", encoding="utf-8")
    words.write_text("".join(f"{answer}\n" for answer in sorted(answers)), encoding="utf-8")
    print(f"{len(sentences)} sentences, {sum(len(s.split()) for s in sentences)} words")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*map(pathlib.Path, sys.argv[1:]))
