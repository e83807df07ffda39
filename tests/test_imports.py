"""What a run imports: without bitsandbytes where nothing is quantised, and yet with it where a later run is."""

from __future__ import annotations

import subprocess
import sys

import pytest

PLAIN_THEN_QUANTISED = """
import gc, sys
from lora_xs.imports import import_libraries
import_libraries(quantised=False)
assert gc.isenabled()
assert "peft" in sys.modules and "transformers" in sys.modules
assert "bitsandbytes" not in sys.modules, "imported all the same"

import torch, bitsandbytes
from peft import LoraConfig, get_peft_model
from peft.import_utils import is_bnb_4bit_available, is_bnb_available
assert is_bnb_available() and is_bnb_4bit_available()
layers = torch.nn.ModuleDict({"a": bitsandbytes.nn.Linear4bit(64, 64), "b": bitsandbytes.nn.Linear8bitLt(64, 64)})
model = torch.nn.Module(); model.layers = layers
for one in (model, model.layers):
    one.is_loaded_in_4bit = one.is_loaded_in_8bit = True
adapted = get_peft_model(model, LoraConfig(target_modules=["a", "b"]))
print(sorted({f"{type(layer).__module__}.{type(layer).__name__}" for layer in adapted.modules()}))
"""


def test_a_quantised_run_after_a_plain_one_finds_peft_s_quantised_layers():
    pytest.importorskip("bitsandbytes")
    done = subprocess.run([sys.executable, "-c", PLAIN_THEN_QUANTISED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "'peft.tuners.lora.bnb.Linear4bit'" in done.stdout
    assert "'peft.tuners.lora.bnb.Linear8bitLt'" in done.stdout
