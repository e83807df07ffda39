"""How many threads a run takes where nobody says: as many as it may use."""

from __future__ import annotations

import os

import pytest

from lora_xs import environment
from lora_xs.environment import set_threads, usable_cores


@pytest.mark.parametrize(("text", "cores"), [("200000 100000", 2), ("50000 100000", 1), ("max 100000", 8), (None, 8)])
def test_a_container_s_quota_of_time_is_a_number_of_cores(tmp_path, monkeypatch, text, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    file = tmp_path / "cpu.max"
    if text is not None:
        file.write_text(text)
    assert usable_cores(file) == cores


@pytest.mark.parametrize(
    ("asked", "variable", "quota", "found"),
    [(None, None, 3, "3"), (None, None, 8, None), (2, None, 3, "2"), (2, "5", 3, "5")],
)
def test_threads_are_the_user_s_else_the_spec_s_else_the_quota_s(monkeypatch, asked, variable, quota, found):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(environment, "usable_cores", lambda: quota)
    monkeypatch.setattr(os, "environ", {} if variable is None else {"OMP_NUM_THREADS": variable})
    set_threads(asked, "passive")
    assert os.environ.get("OMP_NUM_THREADS") == found
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
