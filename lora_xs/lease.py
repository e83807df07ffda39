"""One process a run: a lease file with a heartbeat. A live holder keeps others out; a dead one is taken over.

Age is measured by the file system's own clock (the lease's time against that of a file touched now), so that machines
whose clocks disagree do not matter. Since that clock may jump too, a holder that looks dead is watched before it counts
as dead: one that lives gives a sign of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType

from lora_xs.raised import portable

LEASE = "lease.json"


@portable
class RunBusy(RuntimeError):
    """Another live process holds the run; the message says which."""


class Lease:
    """Context manager that holds `folder/lease.json`. Raises RunBusy on entry when a live process holds it.

    heartbeat: seconds between two signs of life. stale: seconds without one after which a holder looks dead; it is
    then watched for two heartbeats. A holder on this machine whose process is gone counts as dead at once.
    """

    def __init__(self, folder: Path, heartbeat: float = 10.0, stale: float = 60.0) -> None:
        self.path = folder / LEASE
        self.heartbeat, self.stale = heartbeat, stale
        self.identity = {**_here(), "pid": os.getpid(), "born": _born(os.getpid())}
        self._stop = threading.Event()
        self._lost = False

    def __enter__(self) -> Lease:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(3):
            if self._create():
                self._thread = threading.Thread(target=self._beat, daemon=True)
                self._thread.start()
                return self
            self._retire_if_dead()
        raise RunBusy(f"{self.path.parent} is being taken by several processes at once; start it again")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self.held():
            with contextlib.suppress(OSError):
                self.path.unlink()

    def held(self) -> bool:
        """Whether the lease on disk is still ours."""
        return not self._lost and self._ours()

    def check(self) -> None:
        """Raise RunBusy where the lease is no longer ours: another process took the run over, or its folder is gone."""
        if not self.held():
            raise RunBusy(f"{self.path.parent} was taken over while this process did not show life, or removed")

    def _ours(self) -> bool:
        try:
            return bool(json.loads(self.path.read_text()) == self.identity)
        except (FileNotFoundError, ValueError):
            return False
        except OSError:  # a file system that does not answer now takes no lease away
            return True

    def _create(self) -> bool:
        """Link a complete file into place: atomic, also on network file systems."""
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{LEASE}.")
        try:
            with os.fdopen(handle, "w") as file:
                json.dump(self.identity, file)
            os.link(name, self.path)
            return True
        except FileExistsError:
            return False
        finally:
            os.unlink(name)

    def _retire_if_dead(self) -> None:
        holder = _read(self.path)
        age = self._age()
        if age is None:
            return
        if not _gone(holder) and (abs(age) < self.stale or self._shows_life()):
            raise RunBusy(
                f"{self.path.parent} is being trained by process {holder.get('pid')} on {holder.get('host')} "
                f"(sign of life {max(0.0, age):.0f} s ago); wait for it or stop it"
            )
        retired = self.path.with_name(f".{LEASE}.dead.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path, retired)
            if _read(retired) != holder:  # someone else took over in between: give it back
                with contextlib.suppress(FileExistsError):
                    os.link(retired, self.path)
            retired.unlink()

    def _age(self) -> float | None:
        """Seconds since the holder's last sign of life, below 0 where the clock was put back; None without a lease."""
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{LEASE}.now.")
        os.close(handle)
        try:
            return os.stat(name).st_mtime - self.path.stat().st_mtime
        except FileNotFoundError:
            return None
        finally:
            os.unlink(name)

    def _shows_life(self) -> bool:
        """Watch the lease for two heartbeats: whether a sign of life comes, or somebody else's lease."""
        before, until = self._sign(), time.monotonic() + 2 * self.heartbeat
        while time.monotonic() < until:
            time.sleep(self.heartbeat / 20)
            now = self._sign()
            if now != before:
                return now is not None
        return False

    def _sign(self) -> tuple[int, int] | None:
        """What changes with a sign of life; None without a lease."""
        try:
            with open(self.path, "rb") as opened:  # a network file system asks its server when a file is opened
                facts = os.fstat(opened.fileno())
        except OSError:
            return None
        return facts.st_mtime_ns, facts.st_ino

    def _beat(self) -> None:
        while not self._stop.wait(self.heartbeat):
            if not self._ours():
                self._lost = True
                return
            with contextlib.suppress(OSError):
                os.utime(self.path)


def _read(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _here() -> dict[str, object]:
    """Where a process number means what it means here: containers may share a host's name and not its processes."""
    try:
        return {"host": socket.gethostname(), "processes": os.stat("/proc/self/ns/pid").st_ino}
    except OSError:
        return {"host": socket.gethostname(), "processes": None}


def _gone(holder: dict[str, object]) -> bool:
    """Whether this process can tell that the holder's is no more; False where it cannot ask."""
    if any(holder.get(key) != value for key, value in _here().items()):
        return False
    return _born(int(str(holder.get("pid", 0)))) != holder.get("born")


def _born(pid: int) -> str | None:
    """When a process of this machine started, in kernel ticks (a reused pid differs); None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        try:
            os.kill(pid, 0)
        except OSError:
            return None
        return "unknown"
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def live_holder(folder: Path, now: float, stale: float = 60.0) -> dict[str, object] | None:
    """Who holds `folder` and shows life, as a newcomer would judge it, or None. Only reads; now: the file system's
    time, for holders on other machines (those of this one are asked for by their process)."""
    try:
        age = now - (folder / LEASE).stat().st_mtime
    except OSError:
        return None
    holder = _read(folder / LEASE)
    return holder if not _gone(holder) and abs(age) < stale else None
