"""Which run is next: order, needs, crashes, runs of others, and what is said in the end."""

from __future__ import annotations

import dataclasses

import pytest

from lora_xs.records import Record, write_record
from lora_xs.sweeps.board import BUSY_PAUSE, Board
from lora_xs.sweeps.manifest import Line
from lora_xs.sweeps.outcome import Event
from lora_xs.sweeps.verdict import Verdict
from lora_xs.sweeps.worker import with_needs


def record(run: Line, status: str = "finished") -> None:
    """A record of `run`, as its process would leave it."""
    run.spec.folder.mkdir(parents=True, exist_ok=True)
    block = {"signature": run.spec.signature, "spec": {}, "error": None}
    write_record(run.spec.folder, Record(status, block))  # type: ignore[arg-type]


@pytest.fixture
def lines(tiny_run) -> list[Line]:
    """Three runs, the second of which needs the third."""
    first = tiny_run()
    one, two, three = (first.replace(seed=seed) for seed in range(3))
    return [Line(one), Line(two, (three.signature,)), Line(three)]


def test_runs_go_out_in_order_each_after_what_it_needs(lines: list[Line]) -> None:
    board = Board(lines)
    assert [board.take(), board.take(), board.take()] == [lines[0], lines[2], None]
    record(lines[2])
    board.settle(lines[2], Verdict("finished"))
    assert board.take() == lines[1] and not board.over


def test_a_run_that_has_a_record_is_never_handed_out(lines: list[Line]) -> None:
    record(lines[2])
    record(lines[0], "diverged")
    board = Board(lines)
    assert board.take() == lines[1] and board.take() is None
    outcome = board.outcome()  # the first two are settled, the third is still out
    assert (outcome.already, outcome.diverged, outcome.left) == (1, 1, 1)


@pytest.mark.parametrize("end", ["failed", "diverged"])
def test_what_needs_a_run_that_did_not_finish_is_not_run(lines: list[Line], end: str) -> None:
    board = Board(lines[1:])
    assert board.take() == lines[2]
    if end == "diverged":
        record(lines[2], "diverged")
    board.settle(lines[2], Verdict(end, "no luck"))  # type: ignore[arg-type]
    assert board.take() is None and board.over
    outcome = board.outcome()
    assert not outcome.complete and list(outcome.blocked) == [str(lines[1].spec.folder)]
    assert f"needs run {lines[2].spec.signature}, which is {end}" in "\n".join(outcome.lines())


def test_what_is_needed_may_be_finished_elsewhere_below_the_same_results(lines: list[Line]) -> None:
    alone = Board([lines[1]])
    assert alone.take() is None and "launch it too" in alone.outcome().lines()[1]
    record(lines[2])
    assert Board([lines[1]]).take() == lines[1]


def test_a_crash_costs_one_retry_and_a_failure_none(lines: list[Line]) -> None:
    board = Board([lines[0], lines[2]], retries=1)
    for count in range(2):
        assert board.take() == lines[0]
        board.settle(lines[0], Verdict("crashed", f"crash {count}"))
    assert board.take() == lines[2]
    board.settle(lines[2], Verdict("failed", "its own fault"))
    outcome = board.outcome()
    assert board.over and outcome.retried == 1 and not outcome.complete
    assert list(outcome.failed.values()) == ["given up after 2 crashes: crash 1", "its own fault"]


def test_a_record_outweighs_a_crash_and_a_last_word_without_a_record_is_one(lines: list[Line]) -> None:
    board = Board([lines[0], lines[2]], retries=0)
    for run in (board.take(), board.take()):
        assert run is not None
    record(lines[0])
    board.settle(lines[0], Verdict("crashed", "after its last word"))
    board.settle(lines[2], Verdict("finished"))
    outcome = board.outcome()
    assert outcome.finished == 1 and "there is no record" in outcome.failed[str(lines[2].spec.folder)]


def test_a_record_of_another_run_is_not_this_ones(lines: list[Line]) -> None:
    other = dataclasses.replace(lines[0], spec=lines[2].spec)
    record(other)
    source, target = other.spec.folder / "record.json", lines[0].spec.folder / "record.json"
    target.parent.mkdir(parents=True)
    target.write_bytes(source.read_bytes())
    assert Board([lines[0]]).take() == lines[0]


def test_a_run_that_others_have_is_looked_at_again_ever_more_rarely(lines: list[Line]) -> None:
    now = [0.0]
    board = Board([lines[0]], clock=lambda: now[0])
    waited = []
    for _ in range(7):
        began = now[0]
        while board.take() is None:
            now[0] += 0.5
        waited.append(now[0] - began)
        board.settle(lines[0], Verdict("busy", "process 1 has it"))
    assert waited[0] == 0.0 and waited[1] == BUSY_PAUSE[0] and waited[-1] == BUSY_PAUSE[1]
    record(lines[0])
    now[0] += 100.0
    assert board.take() is None and board.over and board.outcome().already == 1


def test_every_change_is_told(lines: list[Line]) -> None:
    seen: list[Event] = []
    board = Board([lines[0], lines[2]], on_event=seen.append)
    board.take()
    board.settle(lines[0], Verdict("stopped", "asked to"))
    board.take()
    record(lines[0])
    board.settle(lines[0], Verdict("finished"))
    record(lines[2])
    assert board.take() is None
    assert [event.kind for event in seen] == ["started", "stopped", "started", "finished", "already"]


def test_a_full_disk_is_nobodys_fault_and_the_outcome_says_what_to_do(lines: list[Line]) -> None:
    board = Board([lines[0]])
    board.take()
    board.settle(lines[0], Verdict("full", "OSError: No space left on device"))
    assert board.full and not board.over
    outcome = board.outcome(board.full)
    assert outcome.left == 1 and not outcome.failed and "launch it again to go on" in outcome.lines()[-1]


def test_a_slice_takes_along_what_it_needs_of_other_slices(lines: list[Line]) -> None:
    assert with_needs(lines, 1, 3) == [lines[1], lines[2]]
    assert with_needs(lines, 0, 3) == [lines[0]]


def test_a_verdict_survives_its_journey_and_nothing_else_does() -> None:
    verdict = Verdict("failed", "ValueError: μ\nand more")
    assert Verdict.from_line(verdict.to_line()) == verdict and verdict.to_line().count("\n") == 1
    for line in ("[]", "{}", '{"ending": "won"}', '{"ending": "failed", "more": 1}', "Loading weights: 100%"):
        with pytest.raises(ValueError):
            Verdict.from_line(line)
