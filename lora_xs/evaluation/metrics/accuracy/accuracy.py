"""Accuracy as an `evaluate` module: the fraction of rows with the right class."""

from __future__ import annotations

import datasets
import evaluate
from sklearn.metrics import accuracy_score


class Accuracy(evaluate.Metric):
    """`compute(predictions, references)` of class ids gives `{"accuracy": 0…1}`."""

    def _info(self) -> evaluate.MetricInfo:
        classes = datasets.Value("int64")
        return evaluate.MetricInfo(
            description="Fraction of rows with the right class, 0 to 1.",
            citation="",
            inputs_description="predictions, references: class ids.",
            features=datasets.Features({"predictions": classes, "references": classes}),
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}
