"""Mistakes on the command line that Hydra and Python would answer with a traceback, or find after hours: one line."""

from __future__ import annotations

import pytest

from lora_xs.errors import UserError
from lora_xs.spec import RunSpec
from lora_xs.spec.compose import compose_config


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
        ("trainer.compile=0", "trainer.compile=0 is not allowed; choose one of False, True, cuda_graphs"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(override: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        config = compose_config(["task=glue/mrpc", override])
        config.pop("force")
        RunSpec.from_config(config)
    assert words in str(caught.value) and "\n" not in str(caught.value)
