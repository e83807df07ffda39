"""Who may share a bundle and under what name, and the command that packs, adds, lists and unpacks."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from oracles import lora_xs as oracle
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from users import USERS, WEIGHTS, refused, same_tensors, save_users

from lora_xs.adapters.bundle import Bundle, check_name
from lora_xs.adapters.packing import adapters_under, add_adapters, pack_adapters
from lora_xs.adapters.tuner.fingerprint import Fingerprint, sketch_factors

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def command(monkeypatch) -> ModuleType:
    """scripts/bundle.py as a module."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("bundle_command", REPOSITORY / "scripts" / "bundle.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lora_alpha": 12}, "lora_alpha is 12, the bundle's is 6"),
        ({"r": 3}, "r is 3"),
        ({"rank_pattern": {"query": 2}}, "rank_pattern"),
        ({"target_modules": ["query"]}, "target_modules"),
        ({"part": "bottom"}, "part is 'bottom'"),
        ({"init_weights": "random"}, "init_weights"),
        ({"save_factors": True}, "factors_in_checkpoint"),
    ],
)
def test_adapters_of_other_settings_are_refused_by_name(tmp_path, folders, packed, settings, said):
    other = save_users(tmp_path / "in", ["zoe"], **settings)
    path = tmp_path / "users.safetensors"
    path.write_bytes(packed.read_bytes())
    for message in (
        refused(add_adapters, path, other),
        refused(pack_adapters, tmp_path / "new", {**folders, **other}),
    ):
        assert message.startswith("zoe (") and said in message
    assert path.read_bytes() == packed.read_bytes() and not (tmp_path / "new").exists()


def test_what_concerns_training_alone_may_differ(tmp_path, folders):
    other = save_users(tmp_path / "in", ["zoe"], init_std=1e-3, lora_dropout=0.1)
    path = other["zoe"] / "adapter_config.json"
    config = json.loads(path.read_text())
    del config["alpha_pattern"]  # as an adapter saved before the field was there
    path.write_text(json.dumps(config))
    pack_adapters(tmp_path / "users.safetensors", {**folders, **other})


def test_factors_are_never_mixed(tmp_path, folders):
    """As with LoRA-SB, whose factors come out of each user's own rows: same settings, other factors."""
    other = save_users(tmp_path / "in", ["zoe"])
    entries = load_file(other["zoe"] / WEIGHTS)
    key = "base_model.model.bert.encoder.layer.1.output.dense.lora_fingerprint"

    def damaged(change) -> str:
        data = entries[key].clone()
        change(data)
        save_file({**entries, key: data}, other["zoe"] / WEIGHTS)
        return refused(pack_adapters, tmp_path / "new", {**folders, **other})

    for change, said in (
        (lambda data: data[0].bitwise_xor_(1), "another base weight"),
        (lambda data: data[16:20].copy_(torch.tensor([5.0]).view(torch.uint8)), "differ numerically"),
        (lambda data: data[-2].sub_(1), "factors were made by"),
    ):
        message = damaged(change)
        assert "zoe" in message and "not over the bundle's factors" in message and said in message
        assert "bert.encoder.layer.1.output.dense" in message


def test_embedded_factors_are_shared_only_where_they_are_the_very_same(tmp_path):
    """What rebuilt factors may differ by between machines is, for factors in a file, another estimate."""
    saved = save_users(tmp_path / "in", ["ada", "bob"], save_factors=True)
    key = "base_model.model.bert.encoder.layer.1.output.dense"
    entries = load_file(saved["bob"] / WEIGHTS)
    A, B = entries[f"{key}.lora_A"] * (1 + 1e-4), entries[f"{key}.lora_B"]
    own = Fingerprint.from_tensor(entries[f"{key}.lora_fingerprint"], "own")
    other = Fingerprint(own.digest, sketch_factors(A, B), own.recipe).to_tensor()
    save_file({**entries, f"{key}.lora_A": A, f"{key}.lora_fingerprint": other}, saved["bob"] / WEIGHTS)
    message = refused(pack_adapters, tmp_path / "b", saved)
    assert message.startswith("bob") and "embeds factors of its own" in message and "pack it apart" in message


@pytest.mark.parametrize("name", ["", ".", "..", "../eve", "a/b", "a\\b", "-rf", "a..b", "a\nb", "a b", "é", "x" * 129])
def test_names_that_are_paths_or_tricks_are_refused(tmp_path, folders, name):
    assert "cannot be a user's name" in refused(check_name, name)
    assert "cannot be a user's name" in refused(pack_adapters, tmp_path / "b", {name: folders["ada"]})


def test_names_people_have_are_names():
    for name in ("a", "7", "ada.lovelace", "eve+1@example.org", "user-000_1", "x" * 128):
        check_name(name)


def test_a_run_s_folder_stands_for_its_best_adapter(tmp_path, folders):
    run = tmp_path / "s0-0123456789ab"
    (run / "adapter").mkdir(parents=True)
    (run / "adapter" / "best").symlink_to(folders["ada"], target_is_directory=True)
    pack_adapters(tmp_path / "users.safetensors", {"ada": run})
    with Bundle(tmp_path / "users.safetensors") as bundle:
        bundle.unpack("ada", tmp_path / "out")
    assert same_tensors(tmp_path / "out" / WEIGHTS, folders["ada"] / WEIGHTS)


def test_two_writers_do_not_lose_each_other_s_users(tmp_path, packed):
    import fcntl

    path = tmp_path / "users.safetensors"
    path.write_bytes(packed.read_bytes())
    more = save_users(tmp_path / "in", ["zoe"])
    with open(path, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert "another process is adding" in refused(add_adapters, path, more)
    add_adapters(path, more)


def test_damaged_and_foreign_adapters_are_refused_before_anything_is_written(tmp_path):
    saved = save_users(tmp_path / "in", ["ada", "bob"])
    get_peft_model(oracle.bert(), LoraConfig(r=2, target_modules=["query"])).save_pretrained(str(tmp_path / "lora"))
    (tmp_path / "empty").mkdir()
    weights = saved["bob"] / WEIGHTS
    for folder, said in ((tmp_path / "lora", "not LORA_XS"), (tmp_path / "empty", "no readable adapter_config.json")):
        assert said in refused(pack_adapters, tmp_path / "b", {"ada": saved["ada"], "zoe": folder})
    whole, entries = weights.read_bytes(), load_file(weights)
    weights.write_bytes(whole[:-10])
    assert "cannot be read" in refused(pack_adapters, tmp_path / "b", saved)
    save_file({key: tensor for key, tensor in entries.items() if "layer.0" not in key}, weights)
    assert "modules differ" in refused(pack_adapters, tmp_path / "b", saved)
    save_file({key: tensor for key, tensor in entries.items() if "fingerprint" not in key}, weights)
    assert "no lora_fingerprint" in refused(pack_adapters, tmp_path / "b", saved)
    save_file({"classifier.weight": torch.ones(2)}, weights)
    assert "holds no R" in refused(pack_adapters, tmp_path / "b", saved)
    assert not (tmp_path / "b").exists()


def test_numbers_that_cannot_be_kept_are_refused_and_leave_no_file(tmp_path):
    large = save_users(tmp_path / "in", ["ada"], scale=1e6)
    assert "beyond what torch.float16 holds" in refused(pack_adapters, tmp_path / "b", large, dtype="float16")
    broken = save_users(tmp_path / "in", ["bob"], scale=float("nan"))
    assert "bob: R is not finite" in refused(pack_adapters, tmp_path / "b", broken)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_command_packs_adds_lists_and_unpacks(tmp_path, folders, command, capsys):
    path = tmp_path / "users.safetensors"
    assert command.main(["pack", str(path), "--under", str(folders["ada"].parent)]) == 0
    more = save_users(tmp_path / "in", ["zoe"])
    assert command.main(["add", str(path), f"zoe={more['zoe']}"]) == 0
    capsys.readouterr()
    assert command.main(["list", str(path), "--check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("4 users") and "512 bytes of R each" in lines[0]
    assert [line.split()[0] for line in lines[-4:]] == [*USERS, "zoe"]
    assert command.main(["unpack", str(path), "zoe", "--to", str(tmp_path / "out")]) == 0
    assert same_tensors(tmp_path / "out" / WEIGHTS, more["zoe"] / WEIGHTS)


def test_command_answers_mistakes_in_one_line_and_status_two(tmp_path, folders, packed, command, capsys):
    for arguments, said in (
        (["list", str(tmp_path / "absent")], "no such bundle"),
        (["pack", str(tmp_path / "b"), "ada"], "NAME=FOLDER"),
        (["pack", str(tmp_path / "b"), f"ada={tmp_path}"], "no readable adapter_config.json"),
        (["pack", str(tmp_path / "b"), f"ada={folders['ada']}", f"ada={folders['bob']}"], "named twice"),
        (["pack", str(tmp_path / "b"), "--under", str(tmp_path)], "no folder with an adapter"),
        (["add", str(packed), f"ada={folders['ada']}"], "already"),
        (["unpack", str(packed), "zoe", "--to", str(tmp_path / "out")], "no user 'zoe'"),
    ):
        assert command.main(arguments) == 2
        captured = capsys.readouterr().err
        assert captured.startswith("error: ") and captured.count("\n") == 1 and said in captured


def test_adapters_under_a_folder_are_found_by_name(tmp_path, folders):
    assert adapters_under(folders["ada"].parent) == folders
