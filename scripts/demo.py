"""The whole story in minutes: LoRA-XS at rank 16, then LoRA at rank 8 beside it, on real sentences with real weights.

    make demo        or        python scripts/demo.py [key=value …]

Extra overrides go to both runs, e.g. `python scripts/demo.py seed=1 trainer.epochs=5`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lora_xs.command import main
from lora_xs.exit_status import FAILED, FINISHED
from lora_xs.records import find_records
from lora_xs.reporting.summary import print_summary

RESULTS = Path("results/demo")
COMMON = ("task=reviews", "task.train_rows=1500", "trainer.epochs=2", f"results={RESULTS}")
ARMS = (
    ("method=lora_xs", "rank=16", "trainer.learning_rate=1e-2", "trainer.head_learning_rate=5e-3"),
    ("method=lora", "rank=8", "trainer.learning_rate=1e-3", "trainer.head_learning_rate=5e-3"),
)


def demo(overrides: Sequence[str]) -> int:
    """Run both arms (finished ones are shown at once) and print one table over all that lies in results/demo."""
    statuses = [main([*COMMON, *arm, *overrides]) for arm in ARMS]
    print_summary(find_records(RESULTS))
    return FINISHED if not any(statuses) else max(FAILED, *statuses)


if __name__ == "__main__":
    sys.exit(demo(sys.argv[1:]))
