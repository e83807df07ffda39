"""Matthews correlation as an `evaluate` module: CoLA's metric."""

from __future__ import annotations

import datasets
import evaluate
from sklearn.metrics import matthews_corrcoef


class Matthews(evaluate.Metric):
    """`compute(predictions, references)` of class ids gives `{"matthews": -1…1}`; 0 where either is constant."""

    def _info(self) -> evaluate.MetricInfo:
        classes = datasets.Value("int64")
        return evaluate.MetricInfo(
            description="Matthews correlation coefficient, -1 to 1.",
            citation="",
            inputs_description="predictions, references: class ids.",
            features=datasets.Features({"predictions": classes, "references": classes}),
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"matthews": float(matthews_corrcoef(references, predictions))}
