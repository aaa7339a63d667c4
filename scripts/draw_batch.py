"""Draws docs/batch.svg: one batch of rows that belong to three prompts, over one frozen LM.

python scripts/draw_batch.py [FILE]
"""

import pathlib
import sys

FILE = pathlib.Path(__file__).parents[1] / "docs" / "batch.svg"
COLOURS = {
    "team": "a",
    "capital": "b",
    "reply": "c",
}  # classes of the style below, told apart by shade and by letter too
ROWS = [
    ("team", ["My", "parcel", "is", "wet", "*", "*", "*", "Team:", "?"], "post"),
    ("capital", ["*", "*", "*", "Peru", "*", "*", "*", "?"], "Lima"),
    ("reply", ["*", "*", "two", "cups,", "8", "euros", "Reply:", "?"], "Hi! Only 8 euros!"),
    ("capital", ["*", "*", "*", "Kenya", "*", "*", "*", "?"], "Nairobi"),
]
STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #1f2328 }
  .word { fill: #eef1f4; stroke: #c5ccd3 } .lm { fill: #dfe5eb; stroke: #8a949e }
  .line { stroke: #57606a; stroke-width: 1.5; fill: none }
  .small { font-size: 12px } .middle { text-anchor: middle }
  .a { fill: #0072b2 } .b { fill: #c25a00 } .c { fill: #007a5a }
  text.on { fill: #ffffff; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .word { fill: #242b33; stroke: #4a545f }
    .lm { fill: #2d3640; stroke: #7d8893 }
    .line { stroke: #a8b3be } .a { fill: #4aa8e0 } .b { fill: #ee9240 } .c { fill: #2fb58a }
    text.on { fill: #0d1117 }
  }
"""
CELL, HEIGHT, LEFT, TOP, STEP = 54, 26, 150, 62, 40
LM_LEFT, LM_WIDTH, ANSWER = 668, 92, 790


def main(file: pathlib.Path = FILE) -> None:
    """Write the picture."""
    file.write_text(picture(), encoding="utf-8")


def picture() -> str:
    """The picture as SVG."""
    height = TOP + STEP * len(ROWS) + 44
    title = "One batch of four rows: three prompts, each with soft tokens, share one frozen LM"
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" '
        f'viewBox="0 0 940 {height}" aria-label="{title}">',
        f"<title>{title}</title>",
        f"<style>{STYLE}</style>",
        text(16, 30, "prompt", "small"),
        text(LEFT, 30, "one batch: words of the row, and soft tokens of its prompt", "small"),
        text(ANSWER, 30, "answer", "small"),
        box(LM_LEFT, TOP - 12, LM_WIDTH, STEP * len(ROWS) + 10, "lm", 8),
        text(LM_LEFT + LM_WIDTH / 2, TOP + STEP * len(ROWS) / 2 - 12, "frozen", "middle"),
        text(LM_LEFT + LM_WIDTH / 2, TOP + STEP * len(ROWS) / 2 + 8, "LM", "middle"),
    ]
    for number, (name, words, answer) in enumerate(ROWS):
        parts += row(TOP + STEP * number, name, words, answer)
    kept = "Trained and kept for a prompt: its soft tokens, some thousand numbers."
    kept += " The LM never changes."
    return "\n".join([*parts, text(16, height - 16, kept, "small"), "</svg>"]) + "\n"


def row(top: float, name: str, words: list[str], answer: str) -> list[str]:
    """A row of the batch: its prompt's name, its tokens, and its answer."""
    colour, middle = COLOURS[name], top + HEIGHT / 2
    parts = [box(16, top, 100, HEIGHT, colour, 13), text(66, top + 18, name, "on middle")]
    for place, word in enumerate(words):
        left = LEFT + place * (CELL + 2)
        parts.append(box(left, top, CELL, HEIGHT, colour if word == "*" else "word", 4))
        shown = f"{colour}{words[: place + 1].count('*')}" if word == "*" else word
        parts.append(
            text(left + CELL / 2, top + 18, shown, "on middle" if word == "*" else "middle")
        )
    end = LEFT + len(words) * (CELL + 2)
    parts.append(
        f'<path class="line" d="M{end + 2} {middle}H{LM_LEFT}M{LM_LEFT + LM_WIDTH} {middle}h20"/>'
    )
    return [*parts, text(ANSWER, top + 18, answer, "")]


def box(left: float, top: float, width: float, height: float, kind: str, radius: int) -> str:
    """A rectangle with round corners."""
    size = f'width="{width}" height="{height}" rx="{radius}"'
    return f'<rect class="{kind}" x="{left}" y="{top}" {size}/>'


def text(left: float, top: float, words: str, kind: str) -> str:
    """A line of text."""
    return f'<text x="{left}" y="{top}" class="{kind}">{words}</text>'


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
