"""How commands end: a user's mistake in a line, output that nobody reads any more without a word."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lora_xs.errors import UserError
from lora_xs.exit_status import FINISHED, MISTAKE, UNREAD, told_in_a_line

TALKS = """
import sys
from lora_xs.exit_status import told_in_a_line

@told_in_a_line
def main():
    for line in range(100_000):
        print(line)
    return 0

sys.exit(main())
"""


def test_a_mistake_is_one_line_and_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    @told_in_a_line
    def command(rank: int) -> int:
        """Doc."""
        if rank < 1:
            raise UserError(f"rank={rank} is below 1; give 1 or more")
        return FINISHED

    assert command(4) == FINISHED and capsys.readouterr() == ("", "")
    assert command(rank=0) == MISTAKE
    assert capsys.readouterr() == ("", "error: rank=0 is below 1; give 1 or more\n")
    assert (command.__name__, command.__doc__) == ("command", "Doc.")


def test_a_failure_that_is_no_mistake_stays_a_traceback() -> None:
    @told_in_a_line
    def command() -> int:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        command()


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    with subprocess.Popen([sys.executable, "-c", TALKS], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
        assert command.stdout is not None and command.stderr is not None
        assert command.stdout.readline() == b"0\n"
        command.stdout.close()
        assert command.stderr.read() == b""
    assert command.returncode == UNREAD
