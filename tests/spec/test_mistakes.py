"""Mistakes on the command line that Hydra and Python would answer with a traceback, or find after hours: one line."""

from __future__ import annotations

import pytest

from lora_xs.errors import UserError
from lora_xs.spec.compose import compose_config, compose_spec
from lora_xs.spec.rules import METRICS
from lora_xs.spec.unread import INIT_READS


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("task=null", "must be a string or a list"),
        ("rank=null", "must be a string or a list"),
        ("~trainer", "give another value with trainer=…"),
        ("~task.family", "nothing can be taken out"),
        ("~force", "nothing can be taken out"),
        ("evaluation.max_new_tokens={gsm8k:abc}", "evaluation.max_new_tokens.gsm8k='abc' must be a whole number"),
        ("model.architecture={hidden_size:abc}", "model.architecture.hidden_size='abc' must be a whole number"),
        ("seed=5000000000", "seed=5000000000 must be below"),
        ("model.hub=other/weights", "model.hub=other/weights is not model=roberta-large"),
        ("model.package='other==1.0:other/model'", "give it a name of its own too: model.name=…"),
        ("task.metrics=[nope]", "task.metrics: 'nope' is no metric of a classification task; known: accuracy"),
        ("trainer.compile=0", "trainer.compile=0 is not allowed; choose one of False, True, cuda_graphs"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(override: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        compose_spec(["task=glue/mrpc", override])
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            "method=lora +init.part=bottom",
            "has no meaning for init=method of method=lora: it reads no key",
        ),
        ("method=full_ft init.seed=7", "init.seed=7 has no meaning"),
        ("method=vera +init.std=0.1", "init.std=0.1 has no meaning for init=method of method=vera: it reads init.seed"),
        ("init=svd_w +init.seed=7", "it reads init.part, init.sigma, init.std"),
        ("init=random +init.sigma=false", "init.sigma=False has no meaning for init=random"),
        ("init=svd_w +init.samples=9", "init.samples=9 has no meaning"),
        ("method=vera method.alpha=4", "method.alpha=4 has no meaning for method=vera"),
        ("method=full_ft method.target_modules=[query]", "method.target_modules has no meaning for method=full_ft"),
        ("method=head_only method.dropout=0.1", "method.dropout=0.1 has no meaning for method=head_only"),
        ("evaluation=end trainer.early_stopping=2", "trainer.early_stopping=2 has no meaning for evaluation.every=end"),
        ("task=word_problems model=smollm2_135m trainer.head_learning_rate=1", "a language model has no head"),
    ],
)
def test_a_setting_that_nothing_reads_is_refused(overrides: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        compose_spec(["task=reviews", *overrides.split()])
    assert words in str(caught.value) and str(caught.value).endswith("leave it out")


def test_what_an_initialisation_reads_is_what_its_factors_depend_on() -> None:
    from lora_xs.adapters.factors import INITS

    for name, init in INITS.items():
        assert set(init.reads) <= set(INIT_READS[name]), name
        assert name == "update" or set(INIT_READS[name]) == {*init.reads, "std"}, name


def test_another_models_weights_under_a_name_of_their_own_are_taken() -> None:
    config = compose_config(["task=reviews", "model.hub=other/weights", "model.package=null", "model.name=other"])
    assert (config["model"]["hub"], config["model"]["name"]) == ("other/weights", "other")


def test_metrics_that_a_spec_may_name_are_those_that_are_scored() -> None:
    from lora_xs.evaluation.classification import METRICS as SCORED

    for kind in ("classification", "regression"):
        assert set(METRICS[kind]) == {name for name, of in SCORED.items() if of == kind}
