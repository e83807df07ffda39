"""Scores of predictions: the local metric modules against scikit-learn and scipy, and what they need from a machine."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from lora_xs.errors import UserError
from lora_xs.evaluation import classification
from lora_xs.evaluation.classification import (
    METRICS,
    answers_of,
    collapsed,
    load_metric,
    majority_baseline,
    score_predictions,
)

CLASS_METRICS = ["accuracy", "f1", "matthews"]
SCORE_METRICS = ["pearson", "spearman"]


@pytest.mark.parametrize("seed", range(5))
def test_class_metrics_equal_scikit_learn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, 200)
    logits = generator.normal(size=(200, 2)) + 0.7 * np.eye(2)[labels]
    answers = logits.argmax(axis=1)
    assert score_predictions(CLASS_METRICS, logits, labels, "classification") == pytest.approx(
        {
            "accuracy": 100 * sklearn_metrics.accuracy_score(labels, answers),
            "f1": 100 * sklearn_metrics.f1_score(labels, answers),
            "matthews": 100 * sklearn_metrics.matthews_corrcoef(labels, answers),
        },
        abs=1e-12,
    )


def test_f1_of_more_than_two_classes_is_the_mean_over_them() -> None:
    generator = np.random.default_rng(0)
    labels, logits = generator.integers(0, 3, 100), generator.normal(size=(100, 3))
    expected = 100 * sklearn_metrics.f1_score(labels, logits.argmax(axis=1), average="macro")
    assert score_predictions(["f1"], logits, labels, "classification")["f1"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_correlations_equal_scipy_in_either_shape(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.uniform(0, 5, 150).astype(np.float32)
    scores = (labels + generator.normal(size=150)).astype(np.float32)
    expected = {
        "pearson": 100 * stats.pearsonr(scores.astype(np.float64), labels.astype(np.float64)).statistic,
        "spearman": 100 * stats.spearmanr(scores, labels).statistic,
    }
    assert score_predictions(SCORE_METRICS, scores, labels, "regression") == pytest.approx(expected, abs=1e-9)
    assert score_predictions(SCORE_METRICS, scores[:, None], labels, "regression") == pytest.approx(expected, abs=1e-9)


def test_a_constant_prediction_correlates_with_nothing_and_is_called_collapsed() -> None:
    labels = np.array([0.0, 1.0, 4.0, 5.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert score_predictions(SCORE_METRICS, np.full(4, 2.5), labels, "regression") == {"pearson": 0, "spearman": 0}
        logits = np.tile([1.0, 0.0], (4, 1))
        scores = score_predictions(CLASS_METRICS, logits, np.array([0, 1, 0, 0]), "classification")
    assert scores == {"accuracy": 75.0, "f1": 0.0, "matthews": 0.0}
    assert collapsed(np.full(4, 2.5), "regression") and collapsed(logits, "classification")
    assert not collapsed(labels, "regression") and not collapsed(np.eye(2), "classification")


def test_predictions_that_are_not_finite_have_no_score() -> None:
    logits = np.array([[0.0, 1.0], [np.nan, 1.0]])
    scores = score_predictions(CLASS_METRICS, logits, np.array([1, 1]), "classification")
    assert list(scores) == CLASS_METRICS and all(math.isnan(score) for score in scores.values())
    assert collapsed(logits, "classification")


def test_majority_baseline_is_the_best_constant_answer() -> None:
    labels = np.array([1, 1, 0, 1, 0])
    assert majority_baseline(labels, CLASS_METRICS) == pytest.approx({"accuracy": 60, "f1": 75, "matthews": 0})
    assert majority_baseline(np.array([1, 0]), ["accuracy", "f1"]) == {"accuracy": 50.0, "f1": 0.0}  # tie: class 0
    assert majority_baseline(np.array([0.5, 2.0]), SCORE_METRICS, "regression") == {"pearson": 0.0, "spearman": 0.0}


def test_of_equal_logits_the_first_class_is_the_answer() -> None:
    assert answers_of(np.zeros((2, 3)), "classification").tolist() == [0, 0]


def test_every_metric_folder_is_known_and_the_other_way_round() -> None:
    folders = {path.stem for path in classification.FOLDER.glob("*/*.py") if path.stem == path.parent.name}
    assert folders == set(METRICS)


@pytest.mark.parametrize(
    ("name", "kind"), [("bleu", "classification"), ("pearson", "classification"), ("f1", "regression")]
)
def test_a_metric_that_does_not_fit_is_the_users_mistake(name: str, kind: classification.Kind) -> None:
    with pytest.raises(UserError, match=f"metric '{name}' does not score a {kind}; allowed: "):
        score_predictions([name], np.zeros(3), np.zeros(3), kind)


@pytest.mark.parametrize("predictions", [np.zeros((3, 2)), np.zeros(4), np.zeros((2, 2, 1))])
def test_predictions_of_another_shape_are_refused(predictions: np.ndarray) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        score_predictions(["pearson"], predictions, np.zeros(3), "regression")


def test_a_changed_metric_file_is_picked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "accuracy").mkdir()
    source = (classification.FOLDER / "accuracy" / "accuracy.py").read_text()
    script = tmp_path / "accuracy" / "accuracy.py"
    monkeypatch.setattr(classification, "FOLDER", tmp_path)
    script.write_text(source)
    before = load_metric("accuracy").compute(predictions=[0, 1], references=[0, 0])
    script.write_text(source.replace("float(accuracy_score", "2 * float(accuracy_score"))
    after = load_metric("accuracy").compute(predictions=[0, 1], references=[0, 0])
    assert (before, after) == ({"accuracy": 0.5}, {"accuracy": 1.0})


def test_processes_at_once_with_a_home_that_cannot_be_written_all_score(tmp_path: Path) -> None:
    blocked = tmp_path / "a_file_where_a_folder_should_be"
    blocked.write_text("")
    code = (
        "import numpy as np; from lora_xs.evaluation.classification import score_predictions as s;"
        "print(s(['accuracy', 'matthews'], np.eye(2), np.array([0, 1]), 'classification'))"
    )
    environment = os.environ | {
        "HOME": str(blocked),
        "HF_HOME": str(blocked / "hf"),
        "HF_MODULES_CACHE": str(blocked / "modules"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(classification.__file__).parents[2]),
    }

    def score(_: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100
        )

    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(score, range(2)):
            assert done.returncode == 0, done.stderr
            assert done.stdout.strip().endswith("{'accuracy': 100.0, 'matthews': 100.0}")
