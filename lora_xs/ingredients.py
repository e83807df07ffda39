"""What a run is made of before an adapter is on it: model, tokenizer, rows, tests, tokens; here, read anew each time.

A process that does many runs gives `prepare` one that keeps them (`lora_xs.sweeps.warm`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_xs.data.questions import QuestionSet
    from lora_xs.models import Location
    from lora_xs.spec import RunSpec
    from lora_xs.training.material import Material


class Ingredients:
    """Each method gives what its caller may change at will, and raises UserError for what is missing or malformed."""

    def location(self, spec: RunSpec) -> Location:
        """Where the base model lies."""
        from lora_xs.models import locate

        return locate(spec.model)

    def rows(self, spec: RunSpec) -> Any:
        """The rows the run trains and validates on: TaskRows or InstructionRows, cut to the spec's numbers."""
        task = spec.task
        rows = self.all_rows(spec)
        if task.kind == "instruction":
            return rows.limited(task.train_rows, task.validation_rows, spec.seed, task.take)
        return rows.limited(task.train_rows, task.validation_rows, spec.seed)

    def all_rows(self, spec: RunSpec) -> Any:
        """All rows of the task."""
        from lora_xs.data import load_rows

        return load_rows(spec.task.name, revision=spec.task.revision, **_where(spec))

    def test(self, spec: RunSpec, name: str) -> QuestionSet:
        """The questions of one of the task's tests."""
        from lora_xs.data import load_test

        return load_test(name, **_where(spec)).limited(spec.task.test_rows)

    def base(self, spec: RunSpec, location: Location, labels: int) -> tuple[Any, Any]:
        """The base model and its tokenizer. Of an encoder, with a head of `labels` outputs drawn from torch's RNG."""
        from lora_xs.models import load_base, load_decoder

        if spec.task.kind == "instruction":
            return load_decoder(spec.model, location)
        return load_base(spec.model, location, labels)

    def material(self, spec: RunSpec, rows: Any, tokenizer: Any) -> Material:
        """The rows as tokens. rows, tokenizer: this object's own, of the same spec."""
        from lora_xs.training.material import labelled, responses

        return (responses if spec.task.kind == "instruction" else labelled)(spec, rows, tokenizer)


def _where(spec: RunSpec) -> dict[str, Any]:
    return {"source": spec.data.source, "root": spec.data.root, "prompt": spec.task.prompt}
