"""Spearman correlation as an `evaluate` module: Pearson's of the ranks."""

from __future__ import annotations

import datasets
import evaluate
import numpy as np
from scipy.stats import spearmanr


class Spearman(evaluate.Metric):
    """`compute(predictions, references)` of scores gives `{"spearman": -1…1}`.

    0 where either is constant: the quotient is 0/0 then, and a model that answers the same to everything tells as
    little as one whose answers are uncorrelated (the convention Matthews' correlation has).
    """

    def _info(self) -> evaluate.MetricInfo:
        scores = datasets.Value("float64")
        return evaluate.MetricInfo(
            description="Spearman correlation coefficient, -1 to 1.",
            citation="",
            inputs_description="predictions, references: scores.",
            features=datasets.Features({"predictions": scores, "references": scores}),
        )

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        if np.ptp(predictions) == 0 or np.ptp(references) == 0:
            return {"spearman": 0.0}
        return {"spearman": float(spearmanr(predictions, references).statistic)}
