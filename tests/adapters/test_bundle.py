"""Many users in one file: nothing is lost, one user is one small read, damage is found."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest
import torch
from oracles import lora_xs as oracle
from peft import PeftModel
from safetensors.torch import save_file
from users import USERS, WEIGHTS, refused, same_tensors, save_users

from lora_xs.adapters import bundle as bundle_room
from lora_xs.adapters.bundle import Bundle, write_bundle
from lora_xs.adapters.family import Family, Module
from lora_xs.adapters.packing import add_adapters, pack_adapters
from lora_xs.adapters.tuner.fingerprint import Fingerprint


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rank_pattern": {"output.dense": 2}, "alpha_pattern": {"query": 3}},
        {"init_weights": "random"},
        {"save_factors": True},
        {"task_type": "SEQ_CLS"},
    ],
)
def test_folders_come_back_from_a_bundle_bit_for_bit(tmp_path, settings):
    saved = save_users(tmp_path / "in", USERS, **settings)
    pack_adapters(tmp_path / "users.safetensors", saved)
    with Bundle(tmp_path / "users.safetensors") as bundle:
        for user, folder in saved.items():
            again = bundle.unpack(user, tmp_path / "out" / user)
            assert (again / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
            configs = [json.loads((place / "adapter_config.json").read_text()) for place in (folder, again)]
            assert configs[0] == configs[1]
            assert bundle.rounding(user) == 0.0
    PeftModel.from_pretrained(oracle.bert(), str(tmp_path / "out" / "eve"))


def test_a_head_beside_the_adapter_comes_along_in_its_own_dtype(tmp_path):
    saved = save_users(tmp_path / "in", USERS)
    for i, folder in enumerate(saved.values()):
        head = {"classifier.weight": torch.randn(2, 32) + i, "classifier.bias": torch.randn(2).bfloat16()}
        save_file(head, folder / "head.safetensors")
    pack_adapters(tmp_path / "users.safetensors", saved)
    pack_adapters(tmp_path / "bare.safetensors", saved, heads=False)
    with Bundle(tmp_path / "users.safetensors") as bundle, Bundle(tmp_path / "bare.safetensors") as bare:
        bundle.unpack("bob", tmp_path / "out")
        assert same_tensors(tmp_path / "out" / "head.safetensors", saved["bob"] / "head.safetensors")
        bare.unpack("bob", tmp_path / "bare")
        assert not (tmp_path / "bare" / "head.safetensors").exists()
        assert "keeps no heads" in refused(bare.head, "bob")
    more = save_users(tmp_path / "more", ["zoe"], seed=1)
    assert "its head is absent" in refused(add_adapters, tmp_path / "users.safetensors", more)
    save_file({"classifier.weight": torch.ones(3, 32)}, more["zoe"] / "head.safetensors")
    assert "[3, 32]" in refused(add_adapters, tmp_path / "users.safetensors", more)
    assert "without heads" in refused(add_adapters, tmp_path / "bare.safetensors", more)
    add_adapters(tmp_path / "bare.safetensors", more, heads=False)


def test_adding_gives_the_file_that_packing_all_at_once_gives(tmp_path, folders, packed, monkeypatch):
    monkeypatch.setattr(bundle_room, "CHUNK_BYTES", 600)  # several pieces, none of a whole number of rows
    path = tmp_path / "grown.safetensors"
    pack_adapters(path, {"ada": folders["ada"]})
    add_adapters(path, {"bob": folders["bob"]})
    add_adapters(path, {"eve": folders["eve"]})
    assert path.read_bytes() == packed.read_bytes()


def test_adding_copies_old_rows_in_pieces_never_whole(tmp_path, folders, monkeypatch):
    path = tmp_path / "users.safetensors"
    pack_adapters(path, folders)
    sizes: list[int] = []
    write = bundle_room.write_streams

    def watched(file, streams, metadata):
        def counted(stream):
            def chunks():
                for chunk in stream.chunks():
                    sizes.append(chunk.nbytes)
                    yield chunk

            return stream._replace(chunks=chunks)

        write(file, [counted(stream) for stream in streams], metadata)

    monkeypatch.setattr(bundle_room, "CHUNK_BYTES", 600)
    monkeypatch.setattr(bundle_room, "write_streams", watched)
    add_adapters(path, save_users(tmp_path, ["zoe"], seed=3))
    assert max(sizes) <= max(600, 8 * 16 * 4) < path.stat().st_size
    with Bundle(path) as bundle:
        assert bundle.users == [*USERS, "zoe"]
        bundle.verify()


def test_reading_a_user_touches_that_user_s_row_alone(packed):
    """Every handle the bundle asks for is watched: which tensors are touched, and how many numbers of them."""
    bundle = Bundle(packed)
    touched: dict[str, int] = {}

    class Watched:
        def __init__(self, name, handle):
            self.name, self.handle = name, handle

        def __getitem__(self, key):
            value = self.handle[key]
            touched[self.name] = touched.get(self.name, 0) + value.numel()
            return value

    class File:
        def __init__(self, file):
            self.file = file

        def get_slice(self, name):
            return Watched(name, self.file.get_slice(name))

    bundle._file = File(bundle._file)  # whole tensors cannot be read through it
    bundle.R("bob")
    assert touched == {"R": bundle.family.R_numel, "digests": 16}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to see resident memory")
def test_opening_a_large_bundle_and_reading_a_user_brings_little_of_it_into_memory(tmp_path):
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    class State:
        def R(self) -> torch.Tensor:
            return torch.full((24 * 1024,), 0.5)

    mark = Fingerprint("00" * 16, (1.0, 1.0, 1.0, 1.0), "{}")
    modules = tuple(Module(f"layer.{i}", 32, mark) for i in range(24))
    path = tmp_path / "large.safetensors"
    write_bundle(path, Family({}, modules, (), "float32"), {f"user{i}": State() for i in range(800)})
    size, before = path.stat().st_size, resident()
    assert size > 75e6
    with Bundle(path) as bundle:
        assert float(bundle.R("user700").sum()) == 0.5 * 24 * 1024
        assert resident() - before < size / 8
        bundle._file.get_tensor("R").sum()  # the measure does see what is read
        assert resident() - before > size / 2


@pytest.mark.parametrize(("dtype", "least", "most"), [("float16", 1e-5, 5e-4), ("bfloat16", 1e-4, 4e-3)])
def test_half_precision_halves_R_and_says_what_it_cost(tmp_path, folders, packed, dtype, least, most):
    path = tmp_path / "half.safetensors"
    pack_adapters(path, folders, dtype=dtype)
    with Bundle(path) as half, Bundle(packed) as full:
        for user in USERS:
            stored, exact = half.R(user).double(), full.R(user).double()
            true = float((stored - exact).norm() / exact.norm())
            assert half.rounding(user) == pytest.approx(true, rel=0.01)
            assert least < true < most
        assert half.R("ada").nbytes * 2 == full.R("ada").nbytes
    add_adapters(path, save_users(tmp_path, ["zoe"], seed=3))
    with Bundle(path) as half:
        assert half.dtype == getattr(torch, dtype) and half.rounding("zoe") > 0
        half.verify()
    assert "choose one of" in refused(pack_adapters, tmp_path / "x", folders, dtype="int8")


def test_a_taken_name_an_existing_file_and_an_unknown_user_are_refused(tmp_path, folders, packed):
    path = tmp_path / "users.safetensors"
    path.write_bytes(packed.read_bytes())
    assert "'bob' already" in refused(add_adapters, path, {"bob": folders["ada"]})
    assert "exists" in refused(pack_adapters, path, folders)
    assert "no adapter to pack" in refused(pack_adapters, tmp_path / "new", {})
    with Bundle(path) as bundle:
        assert "no user 'zoe' among 3" in refused(bundle.R, "zoe")
        assert "not an empty folder" in refused(bundle.unpack, "ada", tmp_path)
        assert len(bundle) == 3 and "ada" in bundle and "zoe" not in bundle
    assert "closed" in refused(bundle.R, "ada")


def test_a_forged_description_is_refused_and_writes_nothing_anywhere(tmp_path, packed):
    content, path = packed.read_bytes(), tmp_path / "forged.safetensors"
    for dtype in (b"complex", b"int8___"):
        forged = content.replace(rb"R_dtype\\\":\\\"float32", rb"R_dtype\\\":\\\"" + dtype)
        assert forged != content
        path.write_bytes(forged)
        assert "not a bundle, or damaged" in refused(Bundle, path)
    family = json.loads(Bundle(packed).family.to_json())
    for file in ("../../escaped.safetensors", "/tmp/escaped.safetensors", "adapter_config.json"):
        with pytest.raises(ValueError, match="no file of an adapter"):
            Family.from_json(json.dumps({**family, "head": [[file, "classifier.weight", [2, 8], "float32"]]}))


def test_a_truncated_damaged_or_foreign_file_is_one_line(tmp_path, folders, packed):
    content = packed.read_bytes()
    path = tmp_path / "users.safetensors"
    header = 8 + int.from_bytes(content[:8], "little")
    for cut in (0, 5, 100, header, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        assert "truncated or no safetensors file" in refused(Bundle, path)
    path.write_bytes(content + b"more")
    assert "truncated or no safetensors file" in refused(Bundle, path)
    save_file({"R": torch.zeros(3, 4)}, path)
    assert "not a bundle" in refused(Bundle, path)
    assert "not a bundle" in refused(Bundle, folders["ada"] / WEIGHTS)
    assert "no such bundle" in refused(Bundle, tmp_path / "absent")
    assert refused(Bundle, tmp_path)
    assert "no bundle that can be read" in refused(add_adapters, tmp_path / "absent", folders)
    path.write_bytes(content.replace(b'\\"schema\\": 1', b'\\"schema\\": 2').replace(b"eve\n", b"bve\n"))
    assert refused(Bundle, path)


def test_a_flipped_bit_is_found_when_its_user_is_read_and_only_then(tmp_path, packed):
    content = bytearray(packed.read_bytes())
    with Bundle(packed) as bundle:
        width = bundle.family.R_numel * 4
    header = 8 + int.from_bytes(content[:8], "little")
    content[header + width + 7] ^= 1  # R comes first: this is bob's second number
    path = tmp_path / "users.safetensors"
    path.write_bytes(content)
    with Bundle(path) as bundle:
        bundle.R("ada")
        bundle.R("eve")
        assert "bob's R is damaged" in refused(bundle.R, "bob")
        assert "bob's R is damaged" in refused(bundle.verify)
    at = content.index(b"ada\nbob\neve\n", header)
    content[at] ^= 1
    path.write_bytes(content)
    assert "names are damaged" in refused(Bundle, path)


def test_an_interrupted_add_leaves_the_old_bundle(tmp_path, packed, monkeypatch):
    path = tmp_path / "users.safetensors"
    path.write_bytes(packed.read_bytes())
    monkeypatch.setattr("lora_xs.adapters.family.AdapterFolder.R", lambda self: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        add_adapters(path, save_users(tmp_path / "in", ["zoe"]))
    assert path.read_bytes() == packed.read_bytes()
    assert sorted(place.name for place in tmp_path.iterdir()) == ["in", "users.safetensors"]


def test_a_reader_goes_on_with_the_file_it_opened(tmp_path, packed):
    path = tmp_path / "users.safetensors"
    path.write_bytes(packed.read_bytes())
    with Bundle(path) as before:
        add_adapters(path, save_users(tmp_path / "in", ["zoe"], seed=9))
        before.verify()
        assert before.users == USERS
    with Bundle(path) as after:
        assert after.users == [*USERS, "zoe"]


def test_a_user_in_the_file_costs_R_and_little_more(packed, tmp_path, folders):
    grown = tmp_path / "users.safetensors"
    grown.write_bytes(packed.read_bytes())
    more = save_users(tmp_path / "in", [f"u{i:03}" for i in range(12)])
    add_adapters(grown, more)
    each = (grown.stat().st_size - packed.stat().st_size) / 12
    state = 8 * 4**2 * 4  # bytes of the R of 8 modules at rank 4 in fp32
    assert state <= each <= state + 4 + 16 + 5 + 2  # rounding, digests, name, padding and longer numbers in the header
