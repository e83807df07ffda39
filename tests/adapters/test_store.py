"""Factor store: reuse across ranks, gaps, damage, concurrent writers, eviction, folders that cannot be written."""

from __future__ import annotations

import errno
import importlib.util
import json
import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_xs.adapters import store as store_module
from lora_xs.adapters.store import FactorStore, StoredTruncation
from lora_xs.adapters.svd import truncated_svd
from lora_xs.adapters.window import part_start, tensor_digest
from lora_xs.errors import UserError

PARTS = ("top", "middle", "bottom")


def weight_of(seed: int = 0, m: int = 90, n: int = 72) -> Tensor:
    """A weight with a power-law spectrum of exponent 0.5, fp32."""
    generator = torch.Generator().manual_seed(seed)
    k = min(m, n)
    U, V = (torch.linalg.qr(torch.randn(side, k, generator=generator)).Q for side in (m, n))
    return (U * torch.arange(1, k + 1) ** -0.5) @ V.mT


def same_bits(one: StoredTruncation, other: StoredTruncation) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.svd, other.svd, strict=True))


def only_file(root: Path) -> Path:
    (path,) = (path for path in root.rglob("*") if path.is_file())
    return path


@pytest.fixture
def computed(monkeypatch) -> list[tuple[int, int]]:
    """The windows (first, count) that were decomposed, in order."""
    calls: list[tuple[int, int]] = []
    decompose = store_module.decompose

    def counted(weight: Tensor, first: int, count: int, *, name: str = "weight"):
        calls.append((first, count))
        return decompose(weight, first, count, name=name)

    monkeypatch.setattr(store_module, "decompose", counted)
    return calls


def test_second_request_is_read_and_equal(tmp_path: Path, computed: list) -> None:
    weight = weight_of()
    first = FactorStore(tmp_path).truncation(weight, 8)
    second = FactorStore(tmp_path).truncation(weight.clone(), 8)
    assert (first.cached, second.cached, len(computed)) == (False, True, 1)
    assert same_bits(first, second)
    assert (first.residual, first.gap, first.digest) == (second.residual, second.gap, second.digest)
    assert first.residual < 1e-5


@pytest.mark.parametrize("part", PARTS)
def test_ranks_up_to_25_are_slices_of_the_same_bits_whichever_came_first(
    tmp_path: Path, part: str, computed: list
) -> None:
    weight = weight_of()
    rising, falling = FactorStore(tmp_path / "rising"), FactorStore(tmp_path / "falling")
    up = {rank: rising.truncation(weight, rank, part) for rank in (1, 4, 16, 25)}
    down = {rank: falling.truncation(weight, rank, part) for rank in (25, 16, 4, 1)}
    assert len(computed) == 2
    assert all(same_bits(up[rank], down[rank]) for rank in up)
    assert same_bits(FactorStore.disabled().truncation(weight, 4, part), up[4])


@pytest.mark.parametrize("part", PARTS)
def test_what_else_is_stored_never_changes_a_bit(tmp_path: Path, part: str, computed: list) -> None:
    weight, store = weight_of(), FactorStore(tmp_path)
    store.truncation(weight, 72, part)
    assert not store.truncation(weight, 40, part).cached
    after = store.truncation(weight, 10, part)
    assert not after.cached and len(computed) == 3 and sorted(entry.rank for entry in store.entries()) == [25, 64, 72]
    assert same_bits(after, FactorStore.disabled().truncation(weight, 10, part))
    assert store.truncation(weight, 10, part).cached and store.truncation(weight, 40, part).cached


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("rank", [1, 7, 24, 25, 26, 71, 72])
def test_slices_and_gaps_are_those_of_the_rank_asked_for(tmp_path: Path, part: str, rank: int) -> None:
    weight, store = weight_of(), FactorStore(tmp_path)
    store.truncation(weight, next(made for made in (25, 64, 72) if rank <= made), part)
    found = store.truncation(weight, rank, part)
    assert found.cached
    values = torch.linalg.svdvals(weight.double())
    first = part_start(part, rank, 72)
    torch.testing.assert_close(found.svd.S.double(), values[first : first + rank], rtol=0, atol=1e-5)
    direct = truncated_svd(weight, rank, part)
    torch.testing.assert_close(
        (found.svd.U * found.svd.S) @ found.svd.Vh, (direct.U * direct.S) @ direct.Vh, rtol=0, atol=1e-4
    )
    cuts = [cut for cut in (first, first + rank) if 0 < cut < 72]
    exact = min((float(values[cut - 1] - values[cut]) for cut in cuts), default=None)
    assert found.gap == (None if exact is None else pytest.approx(exact / float(values[0]), abs=1e-5))


def test_near_degenerate_gap_is_a_warning_that_names_the_module() -> None:
    U, V = (torch.linalg.qr(torch.randn(60, 60, generator=torch.Generator().manual_seed(s)))[0] for s in (1, 2))
    values = torch.arange(60, 0, -1.0)
    values[6] = values[5] - 1e-4
    weight, store = (U * values) @ V.mT, FactorStore.disabled()
    warned = store.truncation(weight, 6, name="layer.3.query")
    assert warned.warning is not None and "layer.3.query" in warned.warning and "rank 6" in warned.warning
    assert "\n" not in warned.warning
    assert store.truncation(weight, 5).warning is None and store.truncation(weight, 60).warning is None


def test_digest_follows_content_shape_and_dtype_only() -> None:
    weight = weight_of()
    digest = tensor_digest(weight)
    assert len(digest) == 32 and int(digest, 16) >= 0
    assert tensor_digest(torch.nn.Parameter(weight.mT.contiguous().mT)) == digest
    touched = weight.clone()
    touched[40, 40] = torch.nextafter(touched[40, 40], torch.tensor(9.0))
    halves = [tensor_digest(weight.to(dtype)) for dtype in (torch.bfloat16, torch.float16, torch.float64)]
    others = [tensor_digest(touched), tensor_digest(weight.reshape(72, 90)), tensor_digest(weight.mT), *halves]
    assert len({digest, *others}) == 7


def test_weights_of_other_content_or_dtype_never_share_an_entry(tmp_path: Path) -> None:
    store = FactorStore(tmp_path)
    weights = [weight_of(0), weight_of(1), weight_of(0).double(), weight_of(0).bfloat16()]
    assert [store.truncation(weight, 3).cached for weight in weights] == [False] * 4
    assert [store.truncation(weight, 3).svd.S.dtype for weight in weights][2:] == [torch.float64, torch.float32]


def test_another_algorithm_version_does_not_read_the_entry(tmp_path: Path, monkeypatch) -> None:
    store = FactorStore(tmp_path)
    store.truncation(weight_of(), 3)
    monkeypatch.setattr(store_module, "ALGORITHM", "next-1")
    assert not store.truncation(weight_of(), 3).cached


def rewrite(path: Path, **changes: str) -> None:
    """The entry with other metadata."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, metadata={**metadata, **changes})


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "cut in the header": lambda path: path.write_bytes(path.read_bytes()[:20]),
    "not safetensors": lambda path: path.write_bytes(b"hello" * 1000),
    "one bit": lambda path: flip(path, -777),
    "header bit": lambda path: flip(path, 40),
    "foreign tensors": lambda path: save_file({"x": torch.ones(3)}, path),
    "foreign metadata": lambda path: rewrite(path, lora_xs=json.dumps({"identity": {}})),
    "metadata of no sense": lambda path: rewrite(path, lora_xs="[1, 2"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_entry_is_computed_again_and_healed(tmp_path: Path, kind: str, caplog) -> None:
    weight, store = weight_of(), FactorStore(tmp_path)
    sound = store.truncation(weight, 8)
    path = only_file(tmp_path)
    DAMAGE[kind](path)
    with caplog.at_level("INFO"):
        again = FactorStore(tmp_path).truncation(weight, 8)
    assert not again.cached and same_bits(again, sound)
    assert str(path) in caplog.text
    if kind != "a folder":
        healed = FactorStore(tmp_path).truncation(weight, 8)
        assert healed.cached and same_bits(healed, sound)


def test_anothers_entry_under_this_name_is_not_believed(tmp_path: Path) -> None:
    weight, other, store = weight_of(0), weight_of(1), FactorStore(tmp_path)
    mine = store.truncation(weight, 8)
    path = only_file(tmp_path)
    FactorStore(tmp_path / "other").truncation(other, 8)
    os.replace(only_file(tmp_path / "other"), path)
    again = store.truncation(weight, 8)
    assert not again.cached and same_bits(again, mine)


def write_repeatedly(root: str, barrier, failures) -> None:
    """One of several processes that compute, clear and read the same three entries at once."""
    torch.set_num_threads(1)
    store = FactorStore(Path(root), max_bytes=120_000)
    expected = [FactorStore.disabled().truncation(weight_of(seed), 8) for seed in range(3)]
    barrier.wait()
    for turn in range(40):
        found = store.truncation(weight_of(turn % 3), 8)
        if not same_bits(found, expected[turn % 3]):
            failures.put(f"turn {turn}")
        if turn % 9 == 0:
            store.clear()


def test_concurrent_writers_and_removers_never_see_a_wrong_truncation(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, failures = context.Barrier(3), context.Queue()
    writers = [context.Process(target=write_repeatedly, args=(str(tmp_path), barrier, failures)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=120)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert failures.empty()
    assert all(path.suffix == ".safetensors" for path in tmp_path.rglob("*") if path.is_file())
    assert FactorStore(tmp_path).truncation(weight_of(0), 8).svd.S.numel() == 8


def test_least_recently_used_entries_go_when_the_store_is_full(tmp_path: Path) -> None:
    weights = [weight_of(seed) for seed in range(4)]
    FactorStore(tmp_path).truncation(weights[0], 8)
    size = only_file(tmp_path).stat().st_size
    store = FactorStore(tmp_path, max_bytes=3 * size + size // 2)
    for age, weight in zip((300, 200, 100), weights, strict=False):
        digest = store.truncation(weight, 8).digest
        (path,) = tmp_path.rglob(f"{digest}*")
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age))
    assert store.truncation(weights[0], 8).cached  # now the most recent
    store.truncation(weights[3], 8)
    assert sum(entry.bytes for entry in store.entries()) <= store.max_bytes
    assert [store.truncation(weights[i], 8).cached for i in (0, 2, 3)] == [True] * 3
    assert not FactorStore(tmp_path).truncation(weights[1], 8).cached


def test_a_store_without_room_for_anything_still_answers(tmp_path: Path) -> None:
    store = FactorStore(tmp_path, max_bytes=0)
    assert store.truncation(weight_of(), 8).svd.S.numel() == 8
    assert store.entries() == []


def test_what_a_dead_writer_left_is_removed_later(tmp_path: Path) -> None:
    old, new = tmp_path / "ab" / ".ab_top_x.safetensors.1-2", tmp_path / "ab" / ".ab_top_x.safetensors.1-3"
    old.parent.mkdir()
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    FactorStore(tmp_path).truncation(weight_of(), 8)
    assert not old.exists() and new.exists()


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_store_that_cannot_be_written_warns_once_and_goes_on(tmp_path: Path, monkeypatch, caplog, code: int) -> None:
    FactorStore(tmp_path).truncation(weight_of(0), 8)

    def refuse(path: Path, content: bytes) -> None:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(store_module, "write_bytes", refuse)
    store = FactorStore(tmp_path)
    assert not store.truncation(weight_of(1), 8).cached
    assert not store.truncation(weight_of(2), 8).cached
    assert store.truncation(weight_of(0), 8).cached  # still read
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(tmp_path) in caplog.text and os.strerror(code) in caplog.text


def test_a_root_that_cannot_be_a_folder_only_costs_time(tmp_path: Path, caplog) -> None:
    (tmp_path / "file").write_text("in the way")
    store = FactorStore(tmp_path / "file" / "factors")
    assert [store.truncation(weight_of(), 8).cached for _ in range(2)] == [False, False]
    assert store.entries() == [] and "going on" in caplog.text


def test_environment_chooses_the_folder_the_size_or_none(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("LORA_XS_CACHE", str(tmp_path))
    monkeypatch.setenv("LORA_XS_CACHE_GB", "0.5")
    store = FactorStore()
    assert (store.root, store.max_bytes) == (tmp_path / "factors", 500_000_000)
    monkeypatch.setenv("LORA_XS_CACHE", "off")
    off = FactorStore()
    assert off.root is None and [off.truncation(weight_of(), 8).cached for _ in range(2)] == [False, False]
    assert off.entries() == [] and off.clear() == (0, 0)
    monkeypatch.setenv("LORA_XS_CACHE_GB", "plenty")
    with pytest.raises(UserError, match="LORA_XS_CACHE_GB=plenty"):
        FactorStore()


def test_mistakes_are_reported_before_anything_is_hashed_or_stored(tmp_path: Path) -> None:
    store = FactorStore(tmp_path)
    with pytest.raises(UserError, match=r"^layer\.0\.value: rank 73 is not in 1…72"):
        store.truncation(weight_of(), 73, name="layer.0.value")
    with pytest.raises(UserError, match=r"^layer\.0\.value: .*NaN"):
        store.truncation(weight_of() * float("nan"), 3, name="layer.0.value")
    assert store.entries() == []


def test_entries_are_listed_most_recent_first_and_cleared_by_the_command(tmp_path: Path, capsys) -> None:
    path = Path(__file__).resolve().parents[2] / "scripts" / "factors.py"
    spec = importlib.util.spec_from_file_location("factors_command", path)
    assert spec is not None and spec.loader is not None
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)
    store = FactorStore(tmp_path)
    digests = [store.truncation(weight_of(), 4, part).digest for part in PARTS]
    for age, entry in enumerate(store.entries()):
        os.utime(entry.path, (1e9 - age, 1e9 - age))
    assert [entry.digest for entry in store.entries()] == digests
    assert command.main(["list", "--root", str(tmp_path)]) == 0
    listed = capsys.readouterr().out
    assert all(f"{digests[0]}  {part}" in listed for part in PARTS) and "3 truncations" in listed
    assert command.main(["clear", "--root", str(tmp_path)]) == 0
    assert "removed 3 truncations" in capsys.readouterr().out
    assert not store.truncation(weight_of(), 4).cached
