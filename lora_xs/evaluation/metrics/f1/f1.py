"""F1 as an `evaluate` module: harmonic mean of precision and recall."""

from __future__ import annotations

import datasets
import evaluate
from sklearn.metrics import f1_score


class F1(evaluate.Metric):
    """`compute(predictions, references, average="binary")` of class ids gives `{"f1": 0…1}`.

    `average="binary"` is the F1 of class 1, `"macro"` the mean over the classes. 0 where nothing is predicted or
    nothing is there to be found.
    """

    def _info(self) -> evaluate.MetricInfo:
        classes = datasets.Value("int64")
        return evaluate.MetricInfo(
            description="Harmonic mean of precision and recall, 0 to 1.",
            citation="",
            inputs_description="predictions, references: class ids. average: binary or macro.",
            features=datasets.Features({"predictions": classes, "references": classes}),
        )

    def _compute(self, predictions: list[int], references: list[int], average: str = "binary") -> dict[str, float]:
        return {"f1": float(f1_score(references, predictions, average=average, zero_division=0))}
