"""Scores of predictions on a labelled split (classes or a number a row), through local `evaluate` modules."""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lora_xs.errors import UserError

Kind = Literal["classification", "regression"]

METRICS: dict[str, Kind] = {
    "accuracy": "classification",
    "f1": "classification",
    "matthews": "classification",
    "pearson": "regression",
    "spearman": "regression",
}
FOLDER = Path(__file__).parent / "metrics"


def score_predictions(
    metric_names: Sequence[str], predictions: np.ndarray, labels: np.ndarray, kind: Kind
) -> dict[str, float]:
    """Each metric in points (times 100, correlations too).

    `predictions` are logits `[rows, classes]` or class ids `[rows]` for a classification, scores `[rows]` or
    `[rows, 1]` for a regression; `labels` `[rows]`. F1 is that of class 1, with more than two classes the mean over
    them. A constant prediction scores 0 in every correlation (see `collapsed`); predictions that are not finite have
    no score: nan, never the score of an arbitrary class.
    Raises UserError for an unknown metric or one of the other kind, ValueError for shapes that do not fit.
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    _check(metric_names, predictions, labels, kind)
    if not np.isfinite(predictions).all():
        return {name: float("nan") for name in metric_names}
    answers = answers_of(predictions, kind)
    classes = predictions.shape[1] if predictions.ndim == 2 else int(max(answers.max(), labels.max())) + 1
    scores = {}
    for name in metric_names:
        options: dict[str, Any] = {"average": "macro" if classes > 2 else "binary"} if name == "f1" else {}
        scores[name] = 100.0 * load_metric(name).compute(predictions=answers, references=labels, **options)[name]
    return scores


def majority_baseline(
    labels: np.ndarray, metric_names: Sequence[str], kind: Kind = "classification"
) -> dict[str, float]:
    """What the best constant answer scores on `labels` `[rows]`, in points: the most frequent class (of several the
    smallest id), or the mean of a regression.
    """
    labels = np.asarray(labels)
    if kind == "classification":
        constant = np.full(labels.shape, np.bincount(labels.astype(np.int64)).argmax())
    else:
        constant = np.full(labels.shape, labels.mean(), np.float64)
    return score_predictions(metric_names, constant, labels, kind)


def collapsed(predictions: np.ndarray, kind: Kind) -> bool:
    """Whether a model answers the same (class, or score) to every row, or something that is not finite to any."""
    predictions = np.asarray(predictions)
    return bool(not np.isfinite(predictions).all() or np.ptp(answers_of(predictions, kind)) == 0)


def answers_of(predictions: np.ndarray, kind: Kind) -> np.ndarray:
    """Class ids (the largest logit; of equal ones the first) or scores, `[rows]`."""
    if kind == "classification":
        return predictions.argmax(axis=1) if predictions.ndim == 2 else predictions.astype(np.int64)
    return predictions.reshape(len(predictions)).astype(np.float64)


def load_metric(name: str) -> Any:
    """The `evaluate` module of a metric, read from its file as it is now; works without a network.

    `evaluate` is imported here (it brings seconds of imports) and copies a module before it imports it: into a
    temporary folder of this process, so that neither other processes nor a read-only home matter.
    """
    import evaluate

    with _modules_in(evaluate, _scratch()):
        return evaluate.load(str(FOLDER / name / f"{name}.py"), keep_in_memory=True, cache_dir=str(_scratch()))


@cache
def _scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="lora_xs_metrics_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def _modules_in(evaluate: Any, folder: Path) -> Iterator[None]:
    """Let `evaluate` keep its copies in `folder`, unless its package of copies is already imported from elsewhere."""
    usual = evaluate.config.HF_MODULES_CACHE
    imported = sys.modules.get(evaluate.config.MODULE_NAME_FOR_DYNAMIC_MODULES)
    evaluate.config.HF_MODULES_CACHE = Path(imported.__path__[0]).parent if imported else folder
    try:
        yield
    finally:
        evaluate.config.HF_MODULES_CACHE = usual


def _check(metric_names: Sequence[str], predictions: np.ndarray, labels: np.ndarray, kind: Kind) -> None:
    for name in metric_names:
        if METRICS.get(name) != kind:
            allowed = ", ".join(metric for metric, of in METRICS.items() if of == kind)
            raise UserError(f"metric {name!r} does not score a {kind}; allowed: {allowed}")
    fits = predictions.ndim in (1, 2) and labels.ndim == 1 and len(predictions) == len(labels) and len(labels)
    if not fits or (kind == "regression" and predictions.size != len(labels)):
        raise ValueError(f"predictions {predictions.shape} and labels {labels.shape} do not fit a {kind}")
