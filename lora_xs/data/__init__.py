"""Rows of a task from the hub, a local folder or the package registry behind one name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from lora_xs.cache import cache_root
from lora_xs.data.glue import GLUE, load_glue
from lora_xs.data.reviews import load_reviews
from lora_xs.data.rows import TaskRows, limit_rows
from lora_xs.data.sources import Request
from lora_xs.errors import UserError

__all__ = ["LOADERS", "TaskRows", "limit_rows", "load_rows"]

LOADERS: dict[str, Callable[[Request], TaskRows]] = {
    **{f"glue/{name}": partial(load_glue, name) for name in GLUE},
    "reviews": partial(load_reviews, kind="classification"),
    "reviews_score": partial(load_reviews, kind="regression"),
}


def load_rows(
    task: str,
    *,
    source: Literal["auto", "hub", "local", "package"] = "auto",
    root: Path | str | None = None,
    revision: str | None = None,
    cache: Path | None = None,
) -> TaskRows:
    """The training and validation rows of `task`.

    `source` is `hub`, `local`, `package` or `auto` (`lora_xs.data.sources.resolve_source` says which that is);
    `root` is the local folder, `LORA_XS_DATA` where None; `revision` a commit of the hub's repository, the pinned one
    where None; `cache` the folder for fetched files, `cache_root("data")` where None.
    Raises UserError for an unknown task or source, data that cannot be had (within seconds), and a malformed row.
    """
    if task not in LOADERS:
        raise UserError(f"task={task}: no rows are known for it; allowed: {', '.join(LOADERS)}")
    return LOADERS[task](Request(task, source, Path(root) if root else None, revision, cache or cache_root("data")))
