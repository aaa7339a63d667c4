"""The page of documents that became prompts: what each cost, how it learned, and how much of the
whole document's help its prefix gives."""

import pathlib
from collections.abc import Sequence

from matplotlib.figure import Figure

from ptune.base import files
from ptune.reports.pages import design
from ptune.reports.trial_results import DocumentResult, JudgedContext

SHOWN = 12  # documents whose learning is drawn


def write(
    lm: str,
    documents: Sequence[DocumentResult],
    *,
    judged: Sequence[JudgedContext],
    beside: Sequence[JudgedContext],
    folder: pathlib.Path,
) -> None:
    """Write ``report.html``.

    Args:
        judged: the figures of questions, where some were judged.
        beside: the prefixes of other runs, for the curve.
    """
    page = design.render(
        "documents_page.html",
        lm=lm,
        documents=documents,
        judged=judged,
        by_document=[one for one in judged if one.kind in ("whole document", "prefix")]
        + [one for one in judged if one.kind == "no document"],
        answer=answer(judged),
        curve=_curve([*judged, *beside]) if judged else "",
        learning=_learning(documents[:SHOWN]),
    )
    files.write_text(folder / "report.html", page)


def answer(judged: Sequence[JudgedContext]) -> str:
    """What the prefix gives, in a sentence; empty where nothing was judged."""
    prefix = next((one for one in judged if one.kind == "prefix"), None)
    if prefix is None or prefix.share is None:
        return (
            "The whole document makes these answers no likelier than no document does, so there "
            "is no share of its help to tell."
            if judged
            else ""
        )
    same_size = {
        one.kind: one.share
        for one in sorted(judged, key=lambda one: -abs(one.vectors - prefix.vectors))
        if one.kind in ("first tokens", "summary", "retrieval") and one.share is not None
    }
    others = ", ".join(f"{kind} {share:.0%}" for kind, share in same_size.items())
    return (
        f"A prefix {prefix.smaller:.1f} times smaller than its document gives {prefix.share:.0%} "
        f"of what the whole document gives; at the same size {others}."
    )


def _curve(judged: Sequence[JudgedContext]) -> str:
    """An SVG of the share over how many times smaller a context is."""
    drawing = Figure(figsize=(8.5, 3.4), layout="constrained")
    axes = drawing.subplots()
    words = []
    for number, kind in enumerate(("prefix", "retrieval", "first tokens"), 1):
        points = sorted(
            (one.smaller, one.share)
            for one in judged
            if one.kind == kind and one.share is not None and one.smaller
        )
        if points:
            axes.plot(*zip(*points), label=kind, **design.line_style(number))
            words.append(f"{kind}: " + ", ".join(f"{x:g} times {y:.2f}" for x, y in points))
    if not words:
        return ""
    axes.axhline(1, color=design.INK, lw=0.8, ls=":")
    axes.set_xscale("log")
    axes.set_xticks(ticks := (2, 5, 10, 20, 50), [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("times smaller than the document")
    axes.set_ylabel("share of the document's help")
    axes.legend(frameon=False)
    return design.svg(drawing, "Share of the whole document's help. " + "; ".join(words))


def _learning(documents: Sequence[DocumentResult]) -> str:
    """An SVG of the held-out divergence over the steps."""
    drawing = Figure(figsize=(8.5, 3), layout="constrained")
    axes = drawing.subplots()
    for number, one in enumerate(documents):
        steps = [evaluation.step for evaluation in one.history]
        losses = [evaluation.dev_loss for evaluation in one.history]
        axes.plot(steps, losses, label=one.document, **design.line_style(number))
    axes.set_xlabel("steps")
    axes.set_ylabel("held-out divergence")
    axes.legend(frameon=False, ncols=3)
    names = ", ".join(one.document for one in documents)
    return design.svg(drawing, f"Held-out divergence over the steps of {names}")
