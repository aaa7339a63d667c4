"""Write rows of words of the World Factbook that are said again, for the built-in causal LM to keep
saying again what stands before.

    python scripts/make_repeats.py FACTBOOK.txt REPEATS.txt [NUMBER]

One row a document, two to fourteen words and the same words once or twice behind it.
"""

import pathlib
import random
import re
import sys
from collections import Counter

NUMBER = 20_000


def main(factbook: pathlib.Path, out: pathlib.Path, number: str = str(NUMBER)) -> None:
    counts = Counter(re.findall(r"[A-Za-z]{3,12}", factbook.read_text(encoding="utf-8")))
    words = sorted(word for word, count in counts.items() if count >= 3)
    draw, lines = random.Random(0), []
    for _ in range(int(number)):
        row = " ".join(draw.choice(words) for _ in range(draw.randint(2, 14)))
        lines.append(" = ".join([row] * draw.choice((2, 3))) + ".")
    out.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} rows of {len(words)} words")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(*map(pathlib.Path, sys.argv[1:3]), *sys.argv[3:])
