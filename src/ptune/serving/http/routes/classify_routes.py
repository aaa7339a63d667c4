"""``/v1/classify``: rows of any prompts in, labels and their probabilities out."""

from typing import Any

from fastapi import APIRouter, Request

from ptune.serving.access import Tenant
from ptune.serving.engines.jobs import Job, LabelAnswer
from ptune.serving.http.answering import (
    User,
    answers_of,
    check_fields,
    description_of,
    server_of,
    shown_batch,
    submit,
)
from ptune.serving.http.schemas import ClassifyRequest, RowToClassify
from ptune.serving.problems import Problem, refused

router = APIRouter(tags=["answers"])


@router.post("/v1/classify")
async def classify(body: ClassifyRequest, request: Request, tenant: User) -> dict[str, Any]:
    """Answer rows with labels; the rows of one request may be of different prompts. A row that
    cannot be answered has a problem in the place of its answer, and the others have theirs."""
    most = server_of(request).limits.max_rows
    if len(body.rows) > most:
        raise refused(f"A request may have {most} rows, and this one has {len(body.rows)}.", "rows")
    jobs = [_job(request, tenant, row, number) for number, row in enumerate(body.rows, 1)]
    good = [job for job in jobs if isinstance(job, Job)]
    if good:
        submit(request, tenant, good)
    answers = iter(await answers_of(request, good) if good else [])
    results = [next(answers) if isinstance(job, Job) else job for job in jobs]
    problems = [result for result in results if isinstance(result, Problem)]
    if len(problems) == len(results):
        raise problems[0]
    return {
        "answers": [
            {"prompt": row.prompt, **_shown(result, tenant, body.top)}
            for row, result in zip(body.rows, results)
        ]
    }


def _job(request: Request, tenant: Tenant, row: RowToClassify, number: int) -> Job | Problem:
    place = f"rows[{number - 1}]"
    try:
        description = description_of(server_of(request), tenant, row.prompt, f"{place}.prompt")
        check_fields(row.fields, f"{place}.fields")
    except Problem as problem:
        return problem
    if description.task != "labels":
        detail = f"{row.prompt} writes text: ask /v1/completions for it."
        return refused(detail, f"{place}.prompt")
    return Job(
        row.prompt,
        row.fields,
        number=number,
        place=f"{place}.fields",
        prompt_place=f"{place}.prompt",
    )


def _shown(result: Any, tenant: Tenant, top: int | None) -> dict[str, Any]:
    if isinstance(result, Problem):
        return {"problem": result.document}
    assert isinstance(result, LabelAnswer)
    scores = result.scores
    if isinstance(scores, dict):
        scores = dict(list(scores.items())[:top])
    return {
        "labels" if isinstance(result.label, list) else "label": result.label,
        "scores": scores,
        **result.more,
        "tokens": result.tokens,
        "unknown": result.unknown,
        "batch": shown_batch(tenant, result.batch),
    }
