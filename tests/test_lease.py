"""One process a run: the living keep others out, the dead are taken over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lora_xs.lease import LEASE, Lease, RunBusy, _here


def foreign(folder: Path, **changes: object) -> Path:
    """A lease as a process on another machine would have left it."""
    content = {"host": "elsewhere", "pid": 1, "born": "1", **changes}
    path = folder / LEASE
    path.write_text(json.dumps(content))
    return path


def test_a_second_process_is_kept_out_with_the_holders_name(tmp_path: Path) -> None:
    with Lease(tmp_path), pytest.raises(RunBusy, match=rf"process {os.getpid()} on "):
        Lease(tmp_path).__enter__()


def test_a_lease_ends_with_its_block_and_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with Lease(tmp_path) as lease:
            assert lease.held()
    assert list(tmp_path.iterdir()) == []


def test_a_holder_on_another_machine_counts_until_its_heartbeat_is_old(tmp_path: Path) -> None:
    path = foreign(tmp_path)
    with pytest.raises(RunBusy, match="on elsewhere"):
        Lease(tmp_path).__enter__()
    os.utime(path, (time.time() - 61, time.time() - 61))
    with Lease(tmp_path, heartbeat=0.05) as lease:
        assert lease.held()


@pytest.mark.parametrize("jump", [3600, -3600])
def test_a_clock_that_jumps_neither_ends_a_living_holder_nor_keeps_a_dead_one(tmp_path: Path, jump: int) -> None:
    """The lease of a holder elsewhere looks an hour old, or an hour ahead, until its next sign of life."""
    path = foreign(tmp_path)
    before = time.time() - jump
    os.utime(path, (before, before))
    beat = threading.Timer(0.3, os.utime, [path])
    beat.start()
    with pytest.raises(RunBusy, match="on elsewhere"):
        Lease(tmp_path, heartbeat=2.0).__enter__()
    beat.join()
    os.utime(path, (before, before))
    with Lease(tmp_path, heartbeat=0.1) as lease:
        assert lease.held()


def test_a_holder_that_leaves_while_it_is_watched_makes_room(tmp_path: Path) -> None:
    path = foreign(tmp_path)
    os.utime(path, (0, 0))
    leave = threading.Timer(0.2, path.unlink)
    leave.start()
    with Lease(tmp_path, heartbeat=5.0) as lease:
        assert lease.held()
    leave.join()


def test_a_dead_process_of_this_machine_is_taken_over_at_once(tmp_path: Path) -> None:
    program = f"from lora_xs.lease import Lease; from pathlib import Path; import os; Lease(Path({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", f"{program}.__enter__(); os._exit(0)"], check=True)
    assert (tmp_path / LEASE).exists()
    with Lease(tmp_path) as lease:
        assert lease.held()


def test_a_reused_process_number_is_not_mistaken_for_the_holder(tmp_path: Path) -> None:
    foreign(tmp_path, **_here(), pid=os.getpid(), born="another birth")
    with Lease(tmp_path) as lease:
        assert lease.held()


def test_a_container_that_shares_the_hosts_name_is_asked_by_its_heartbeat_not_by_its_process_number(
    tmp_path: Path,
) -> None:
    foreign(tmp_path, **{**_here(), "processes": 1}, pid=os.getpid(), born="another birth")
    with pytest.raises(RunBusy, match=f"process {os.getpid()} on "):
        Lease(tmp_path).__enter__()


def test_the_heartbeat_keeps_a_lease_young(tmp_path: Path) -> None:
    with Lease(tmp_path, heartbeat=0.05, stale=60) as lease:
        os.utime(lease.path, (0, 0))
        deadline = time.monotonic() + 10
        while lease.path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert lease.path.stat().st_mtime > 0


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    foreign(tmp_path, **_here(), pid=0)
    program = (
        "import sys, time; from pathlib import Path; from lora_xs.lease import Lease, RunBusy\n"
        "try:\n"
        f"    with Lease(Path({str(tmp_path)!r})):\n"
        "        print('got it', flush=True); time.sleep(3)\n"
        "except RunBusy:\n"
        "    print('busy')"
    )
    crowd = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(6)]
    answers = [process.communicate()[0].strip() for process in crowd]
    assert sorted(answers) == ["busy"] * 5 + ["got it"]
