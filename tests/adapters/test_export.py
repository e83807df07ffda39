"""Out of LoRA-XS without loss: plain LoRA that stock PEFT loads, and the command that writes it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from oracles import lora_xs as oracle
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from lora_xs import LoraXsConfig, export_lora
from lora_xs.errors import UserError
from lora_xs.spec.compose import compose_spec

REPOSITORY = Path(__file__).resolve().parents[2]


def trained(base: nn.Module, **settings) -> PeftModel:
    """A model whose R and head have moved away from their start."""
    torch.manual_seed(7)
    defaults = {
        "r": 4,
        "lora_alpha": 6,
        "target_modules": oracle.ROBERTA_TARGETS,
        "init_std": 0.3,
        "task_type": "SEQ_CLS",
    }
    model = get_peft_model(base, LoraXsConfig(**{**defaults, **settings})).eval()
    for name, parameter in model.named_parameters():
        if "modules_to_save" in name:
            parameter.data += 0.1
    return model


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(oracle.tokens()).logits


@pytest.fixture
def base_folder(tmp_path) -> Path:
    oracle.bert().save_pretrained(str(tmp_path / "base"))
    return tmp_path / "base"


@pytest.fixture
def command(monkeypatch) -> ModuleType:
    """scripts/export.py as a module."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("export_command", REPOSITORY / "scripts" / "export.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sigma": False, "part": "middle"},
        {"init_weights": "random"},
        {"rank_pattern": {"output.dense": 2}, "alpha_pattern": {"query": 3}},
        {"target_modules": r".*layer\.\d+\.output\.dense"},
        {"target_modules": ["query"], "layers_to_transform": [1]},
        {"target_modules": "all-linear", "exclude_modules": ["pooler.dense"]},
    ],
)
def test_stock_peft_loads_the_export_with_the_same_logits(tmp_path, settings):
    model = trained(oracle.bert(), **settings)
    folder = export_lora(model, tmp_path / "plain")
    plain = PeftModel.from_pretrained(oracle.bert(), str(folder))
    assert type(plain.peft_config["default"]) is LoraConfig
    torch.testing.assert_close(logits(plain), logits(model), atol=1e-5, rtol=0)
    torch.testing.assert_close(logits(plain.merge_and_unload()), logits(model), atol=1e-5, rtol=0)


def test_export_is_s_B_R_and_A_at_scale_one(tmp_path):
    model = trained(oracle.bert())
    export_lora(model, tmp_path / "plain")
    name = "bert.encoder.layer.1.output.dense"
    layer = model.base_model.model.get_submodule(name)
    saved = load_file(tmp_path / "plain" / "adapter_model.safetensors")
    assert torch.equal(saved[f"base_model.model.{name}.lora_A.weight"], layer.lora_A["default"])
    torch.testing.assert_close(
        saved[f"base_model.model.{name}.lora_B.weight"], 1.5 * layer.lora_B["default"] @ layer.lora_R["default"]
    )
    config = json.loads((tmp_path / "plain" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["use_rslora"]) == ("LORA", 4, 4, False)
    assert not any("lora_R" in key or "fingerprint" in key for key in saved)


def test_a_half_precision_base_loses_nothing_of_R(tmp_path):
    model = trained(oracle.bert().bfloat16(), task_type=None)
    export_lora(model, tmp_path / "plain")
    layer = model.base_model.model.bert.encoder.layer[0].output.dense
    saved = load_file(tmp_path / "plain" / "adapter_model.safetensors")
    found = saved["base_model.model.bert.encoder.layer.0.output.dense.lora_B.weight"]
    torch.testing.assert_close(found, 1.5 * layer.lora_B["default"].float() @ layer.lora_R["default"])
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}


def test_a_conv1d_model_exports_too(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    def build() -> nn.Module:
        torch.manual_seed(0)
        return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=60, n_positions=32)).eval()

    model = trained(build(), target_modules=["c_attn", "c_proj"], task_type="CAUSAL_LM")
    plain = PeftModel.from_pretrained(build(), str(export_lora(model, tmp_path / "plain")))
    torch.testing.assert_close(logits(plain), logits(model), atol=1e-5, rtol=0)


def test_a_named_adapter_and_a_head_outside_peft_are_exported(tmp_path):
    model = trained(oracle.bert(), task_type=None)
    model.add_adapter("other", LoraXsConfig(r=2, target_modules=["query"], init_std=0.3))
    model.set_adapter("other")
    model.base_model.model.classifier.weight.data += 1.0
    plain = PeftModel.from_pretrained(
        oracle.bert(), str(export_lora(model, tmp_path / "plain", "other", head=["classifier"]))
    )
    torch.testing.assert_close(logits(plain), logits(model), atol=1e-5, rtol=0)


def test_what_cannot_be_exported_says_so(tmp_path):
    model = trained(oracle.bert())
    with pytest.raises(UserError, match="'absent'"):
        export_lora(model, tmp_path / "plain", "absent")
    lora = get_peft_model(oracle.bert(), LoraConfig(r=2, target_modules=["query"]))
    with pytest.raises(UserError, match="no LoRA-XS adapter"):
        export_lora(lora, tmp_path / "plain")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="not an empty folder"):
        export_lora(model, tmp_path / "full")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["full", "thesis.tex"]


def test_a_failed_export_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("lora_xs.adapters.export._plain_config", fail)
    with pytest.raises(OSError, match="disk full"):
        export_lora(trained(oracle.bert()), tmp_path / "plain")
    assert list(tmp_path.iterdir()) == []


def test_command_exports_and_merges(tmp_path, base_folder, command, capsys):
    model = trained(oracle.bert())
    model.save_pretrained(str(tmp_path / "adapter"))
    arguments = [str(tmp_path / "adapter"), "--base", str(base_folder)]
    assert command.main([*arguments, "--to", str(tmp_path / "plain")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "plain")
    plain = PeftModel.from_pretrained(oracle.bert(), str(tmp_path / "plain"))
    torch.testing.assert_close(logits(plain), logits(model), atol=1e-5, rtol=0)
    assert command.main([*arguments, "--to", str(tmp_path / "merged"), "--merge"]) == 0
    merged = AutoModelForSequenceClassification.from_pretrained(str(tmp_path / "merged"))
    torch.testing.assert_close(logits(merged), logits(model), atol=1e-5, rtol=0)


def test_command_finds_the_base_the_adapter_names_and_the_head_beside_it(tmp_path, command):
    oracle.bert().bert.save_pretrained(str(tmp_path / "encoder"))  # as pretrained models come: without a head
    base = AutoModelForSequenceClassification.from_pretrained(str(tmp_path / "encoder"), num_labels=3)
    model = trained(base, task_type=None)
    model.save_pretrained(str(tmp_path / "adapter"))
    head = {f"classifier.{name}": p.detach() + 1.0 for name, p in base.classifier.named_parameters()}
    save_file(head, tmp_path / "adapter" / "head.safetensors")
    assert command.main([str(tmp_path / "adapter"), "--to", str(tmp_path / "plain")]) == 0
    base.load_state_dict(head, strict=False)
    plain = AutoModelForSequenceClassification.from_pretrained(str(tmp_path / "encoder"), num_labels=3)
    plain = PeftModel.from_pretrained(plain, str(tmp_path / "plain"))
    torch.testing.assert_close(logits(plain), logits(model), atol=1e-5, rtol=0)


def test_a_run_s_base_is_where_its_model_lies_whatever_name_the_weights_have(tmp_path, base_folder, command, capsys):
    base = AutoModelForSequenceClassification.from_pretrained(str(base_folder))
    base.config._name_or_path = "nobody/has-this-name"  # as of weights out of a package
    model, run = trained(base), tmp_path / "run"
    model.save_pretrained(str(run / "adapter" / "best"))
    spec = compose_spec(["task=reviews", f"model.path={base_folder}", "model=minilm", "model.name=tiny"])
    (run / "spec.json").write_text(json.dumps(spec.to_json()))
    for number, given in enumerate((run, run / "adapter" / "best")):
        assert command.main([str(given), "--to", str(tmp_path / f"plain{number}")]) == 0
        plain = PeftModel.from_pretrained(oracle.bert(), str(tmp_path / f"plain{number}"))
        torch.testing.assert_close(logits(plain), logits(model), atol=1e-5, rtol=0)
    (base_folder / "config.json").unlink()
    capsys.readouterr()
    assert command.main([str(run), "--to", str(tmp_path / "none")]) == 2
    said = capsys.readouterr().err
    assert "or give its folder with --base" in said and said.count("\n") == 1


def test_command_answers_mistakes_in_one_line_and_status_two(tmp_path, base_folder, command, capsys):
    trained(oracle.bert()).save_pretrained(str(tmp_path / "adapter"))
    get_peft_model(oracle.bert(), LoraConfig(r=2, target_modules=["query"])).save_pretrained(str(tmp_path / "lora"))
    for arguments, said in (
        ([tmp_path / "absent", "--to", tmp_path / "out"], "no adapter_config.json"),
        ([tmp_path / "lora", "--to", tmp_path / "out"], "not LORA_XS"),
        ([tmp_path / "adapter", "--to", tmp_path / "out"], "names no base model"),
        ([tmp_path / "adapter", "--to", tmp_path / "out", "--base", tmp_path / "lora"], "no base model there"),
        ([tmp_path / "adapter", "--to", base_folder, "--base", base_folder], "not an empty folder"),
    ):
        assert command.main([str(argument) for argument in arguments]) == 2
        captured = capsys.readouterr().err
        assert captured.startswith("error: ") and captured.count("\n") == 1 and said in captured
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("adapter_model.safetensors", None, "cannot be read"),
        ("adapter_model.safetensors", b"\x00" * 40, "cannot be read"),
        ("adapter_config.json", b"{", "not an adapter's configuration"),
        ("adapter_config.json", b"[]", "not an adapter's configuration"),
    ],
)
def test_a_damaged_adapter_is_one_line(tmp_path, base_folder, command, capsys, file, content, words) -> None:
    folder = tmp_path / "run" / "adapter" / "best"
    trained(oracle.bert()).save_pretrained(str(folder))
    (folder / file).unlink() if content is None else (folder / file).write_bytes(content)
    run = [str(tmp_path / "run"), "--to", str(tmp_path / "out"), "--base", str(base_folder)]
    assert command.main(run) == 2
    said = capsys.readouterr().err
    assert words in said and file in said and said.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_new_process_gets_the_same_logits_from_every_file(tmp_path, base_folder):
    base = AutoModelForSequenceClassification.from_pretrained(str(base_folder))
    model = trained(base)
    model.save_pretrained(str(tmp_path / "adapter"))
    export_lora(model, tmp_path / "plain")
    script = """
import sys, torch
from peft import AutoPeftModelForSequenceClassification as Auto
folder, ids = sys.argv[1], torch.arange(21).view(3, 7) % 50
found = {}
with torch.no_grad():
    found["plain"] = Auto.from_pretrained(folder + "/plain")(ids).logits
    assert "lora_xs" not in sys.modules
    from lora_xs import LoraXsConfig
    model = Auto.from_pretrained(folder + "/adapter")
    found["adapter"] = model(ids).logits
    found["merged"] = model.merge_and_unload()(ids).logits
from safetensors.torch import save_file
save_file(found, folder + "/logits.safetensors")
"""
    process = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr
    for found in load_file(tmp_path / "logits.safetensors").values():
        torch.testing.assert_close(found, logits(model), atol=1e-5, rtol=0)
