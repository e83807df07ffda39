"""What has lost the right to a folder puts nothing in place there."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_xs.atomic import guarded, new_folder, write_text
from lora_xs.lease import LEASE, Lease, RunBusy


def test_without_its_lease_a_process_replaces_no_file_and_no_folder(tmp_path: Path) -> None:
    for name in ("file", "folder/content"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("the successor's")
    with Lease(tmp_path) as lease, guarded(lease.check):
        write_text(tmp_path / "early", "ours")
        (tmp_path / LEASE).write_text("{}")
        with pytest.raises(RunBusy):
            write_text(tmp_path / "file", "late")
        with pytest.raises(RunBusy), new_folder(tmp_path / "folder") as temporary:
            (temporary / "content").write_text("late")
    assert {path.name for path in tmp_path.iterdir()} == {"early", "file", "folder", LEASE}
    assert (tmp_path / "file").read_text() == (tmp_path / "folder/content").read_text() == "the successor's"
    write_text(tmp_path / "file", "anybody's")
    assert (tmp_path / "file").read_text() == "anybody's"
