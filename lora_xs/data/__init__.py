"""Rows of a task, and the questions of its tests, from the hub, a local folder or a package behind one name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lora_xs.cache import cache_root
from lora_xs.data.glue import GLUE, load_glue
from lora_xs.data.instruction_sets import INSTRUCTION_LOADERS
from lora_xs.data.questions import TESTS, QuestionSet
from lora_xs.data.reviews import load_reviews
from lora_xs.data.rows import TaskRows
from lora_xs.data.sources import Request
from lora_xs.errors import UserError

__all__ = ["LOADERS", "TESTS", "QuestionSet", "TaskRows", "load_rows", "load_test"]

LOADERS: dict[str, Callable[[Request], Any]] = {
    **{f"glue/{name}": partial(load_glue, name) for name in GLUE},
    "reviews": partial(load_reviews, kind="classification"),
    "reviews_score": partial(load_reviews, kind="regression"),
    **INSTRUCTION_LOADERS,
}


def load_rows(
    task: str,
    *,
    source: Literal["auto", "hub", "local", "package"] = "auto",
    root: Path | str | None = None,
    revision: str | None = None,
    cache: Path | None = None,
    prompt: str | None = None,
) -> Any:
    """The rows of `task`: TaskRows (labelled texts in two splits) or InstructionRows (prompts and responses).

    `source` is `hub`, `local`, `package` or `auto` (`lora_xs.data.sources.resolve_source` says which that is);
    `root` is the local folder, `LORA_XS_DATA` where None; `revision` a commit of the hub's repository, the pinned one
    where None; `cache` the folder for fetched files, `cache_root("data")` where None; `prompt` the template of prompts
    (`lora_xs.data.prompts`), the family's own where None.
    Raises UserError for an unknown task or source, data that cannot be had (within seconds), and a malformed row.
    """
    if task not in LOADERS:
        raise UserError(f"task={task}: no rows are known for it; allowed: {', '.join(LOADERS)}")
    return LOADERS[task](_request(task, source, root, revision, cache, prompt))


def load_test(
    name: str,
    *,
    source: Literal["auto", "hub", "local", "package"] = "auto",
    root: Path | str | None = None,
    cache: Path | None = None,
    prompt: str | None = None,
) -> QuestionSet:
    """The questions of test `name`; the arguments are `load_rows`'s. Raises UserError as it does."""
    if name not in TESTS:
        raise UserError(f"task.tests={name}: no such test; allowed: {', '.join(TESTS)}")
    return TESTS[name](_request(name, source, root, None, cache, prompt))


def _request(
    name: str, source: Any, root: Path | str | None, revision: str | None, cache: Path | None, prompt: str | None
) -> Request:
    return Request(name, source, Path(root) if root else None, revision, cache or cache_root("data"), prompt)
