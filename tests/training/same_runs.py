"""Whether two runs, however they were split over processes, came out the same."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from lora_xs.records import read_record
from lora_xs.spec import RunSpec
from lora_xs.spec.compose import compose_spec


def spec_of(*overrides: str) -> RunSpec:
    return compose_spec(overrides)


def weights(spec: RunSpec) -> dict[str, torch.Tensor]:
    files = sorted((spec.folder / "adapter" / "last").glob("*.safetensors"))
    return {f"{f.name}:{name}": t for f in files for name, t in load_file(f).items() if "fingerprint" not in name}


def assert_same_run(one: RunSpec, other: RunSpec) -> None:
    """Both finished, with the same batches, losses within 1e-6, trained weights within 1e-5, scores equal."""
    records = [read_record(spec.folder) for spec in (one, other)]
    assert all(record is not None and record.status == "finished" for record in records)
    first, second = (record.train for record in records)
    for key in ("batches_digest", "tokens", "steps"):
        assert first[key] == second[key], key
    histories = [[json.loads(line) for line in (spec.folder / "metrics.jsonl").read_text().splitlines()]
                 for spec in (one, other)]  # fmt: skip
    assert len(histories[0]) == len(histories[1])
    for a, b in zip(*histories, strict=True):
        assert a.keys() == b.keys()
        for key, value in a.items():
            same = pytest.approx(value, abs=1e-6, rel=1e-6) if isinstance(value, float) else value
            assert b[key] == same, key
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=1e-5, msg=name)
