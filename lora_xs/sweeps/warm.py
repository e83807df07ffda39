"""Many runs in one process: base models, rows and tokens stay in memory; every result is that of a process of its own.

Whatever is handed out is a copy or cannot be changed. What was read stays as it was read: a file that is edited in
the middle of a sweep is seen by the next process, and each record names the content it was made from.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from lora_xs.head import is_head
from lora_xs.ingredients import Ingredients
from lora_xs.records import Record
from lora_xs.spec import RunSpec
from lora_xs.spec.identity import plain
from lora_xs.sweeps.slate import clean_slate

if TYPE_CHECKING:
    from torch import Tensor

    from lora_xs.data.questions import QuestionSet
    from lora_xs.models import Location
    from lora_xs.training.material import Material

log = logging.getLogger(__name__)
T = TypeVar("T")


class Warm(Ingredients):
    """Ingredients that are kept between the runs of a process, the least recently used dropped beyond `max_bytes`.

    max_bytes: of what is kept; a model above it is not kept at all, and costs no copy. `hits` and `misses` count by
    kind; `bytes` is what is kept now.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.hits: dict[str, int] = {}
        self.misses: dict[str, int] = {}
        self._kept: OrderedDict[tuple[str, str], tuple[Any, int]] = OrderedDict()

    def run(self, spec: RunSpec, *, command: str = "") -> Record:
        """`lora_xs.runner.run` of one spec with what is kept, and with a clean slate around it."""
        from lora_xs.runner import run

        with clean_slate():
            return run(spec, command=command, ingredients=self)

    def clear(self) -> None:
        """Keep nothing of what is kept now."""
        self._kept.clear()
        self.bytes = 0

    def location(self, spec: RunSpec) -> Location:
        return self._get("location", _text(spec.model), lambda: Ingredients.location(self, spec))

    def rows(self, spec: RunSpec) -> Any:
        return self._get("rows", _rows_key(spec), lambda: Ingredients.rows(self, spec))

    def all_rows(self, spec: RunSpec) -> Any:
        return self._get("all_rows", _source_key(spec), lambda: Ingredients.all_rows(self, spec))

    def test(self, spec: RunSpec, name: str) -> QuestionSet:
        key = _text(name, _source_key(spec), spec.task.test_rows)
        return self._get("test", key, lambda: Ingredients.test(self, spec, name))

    def material(self, spec: RunSpec, rows: Any, tokenizer: Any) -> Material:
        key = _text(spec.model, _rows_key(spec), spec.task.max_length, spec.task.metrics, spec.trainer.padding)
        return self._get("material", key, lambda: Ingredients.material(self, spec, rows, copy.deepcopy(tokenizer)))

    def base(self, spec: RunSpec, location: Location, labels: int) -> tuple[Any, Any]:
        if spec.model.quantization != "none":  # it lies on the device where there is one, and a copy would too
            return Ingredients.base(self, spec, location, labels)
        key = _text(spec.model, str(location.folder), labels)
        if spec.task.kind == "instruction":
            pristine = self._get("base", key, lambda: _Pristine(*Ingredients.base(self, spec, location, labels)))
            return self._own("base", key, pristine)
        return self._encoder(spec, location, labels, key)

    def _encoder(self, spec: RunSpec, location: Location, labels: int, key: str) -> tuple[Any, Any]:
        """An encoder whose head is drawn as if its model had just been read, from the RNG as it stands now."""
        from lora_xs.models.encoder import freshen_head, load_encoder

        head = spec.model.head
        kept = True  # whether the model was there already, and the RNG has not moved

        def load() -> _Pristine:
            nonlocal kept
            kept = False
            before = _rng()
            base, tokenizer = load_encoder(spec.model, location, labels)
            return _Pristine(base, tokenizer, _heads_drawn(base, head, before))

        pristine = self._get("base", key, load)
        if pristine.heads is None and kept:  # how reading moved the RNG cannot be repeated without reading
            self._drop("base", key)
            pristine = self._get("base", key, load)
        base, tokenizer = self._own("base", key, pristine)
        if kept:
            _skip_draws(base, head, pristine.heads or 0)
        freshen_head(base, head)
        return base, tokenizer

    def _get(self, kind: str, key: str, make: Callable[[], T]) -> T:
        """What is kept under `key`, made first where nothing is."""
        place = (kind, key)
        if place in self._kept:
            self._kept.move_to_end(place)
            self.hits[kind] = self.hits.get(kind, 0) + 1
            found: T = self._kept[place][0]
            return found
        made = make()
        self.misses[kind] = self.misses.get(kind, 0) + 1
        size = size_of(made)
        if size <= self.max_bytes:
            self._kept[place] = (made, size)
            self.bytes += size
        while self.bytes > self.max_bytes:
            (dropped, _), (_, freed) = self._kept.popitem(last=False)
            self.bytes -= freed
            log.info("no longer kept: a %s of %.0f MB", dropped, freed / 1e6)
        return made

    def _own(self, kind: str, key: str, pristine: _Pristine) -> tuple[Any, Any]:
        """Model and tokenizer for one run alone: copies, where these are kept."""
        if (kind, key) in self._kept:
            return copy.deepcopy(pristine.model), copy.deepcopy(pristine.tokenizer)
        return pristine.model, pristine.tokenizer

    def _drop(self, kind: str, key: str) -> None:
        _, size = self._kept.pop((kind, key), (None, 0))
        self.bytes -= size


@dataclass
class _Pristine:
    """A base model as it was read, and its tokenizer. heads: how many of them reading drew; None: not known."""

    model: Any
    tokenizer: Any
    heads: int | None = 0


def size_of(thing: Any) -> int:
    """Bytes of memory that keeping `thing` costs, near enough: tensors, tables and texts are counted."""
    if isinstance(thing, _Pristine):
        tensors = [*thing.model.parameters(), *thing.model.buffers()]
        held = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
        return sum(held.values()) + 100 * len(thing.tokenizer)
    if hasattr(thing, "questions"):
        texts = (text for q in thing.questions for text in (q.prompt, q.gold, *q.continuations))
        return sum(len(text) + sys.getsizeof("") for text in texts)
    tables = [getattr(thing, split, None) for split in ("train", "validation")]
    return 1000 + sum(table.data.nbytes for table in tables if table is not None)


def _skip_draws(base: Any, head: Sequence[str], times: int) -> None:
    """Move the RNG on by what `times` heads draw."""
    import torch

    for _ in range(times):
        for name, parameter in base.named_parameters():
            if is_head(name, head) and parameter.ndim >= 2:
                torch.empty_like(parameter).normal_()


def _heads_drawn(base: Any, head: Sequence[str], before: list[Any]) -> int | None:
    """How many heads reading drew: none where the files hold one, or one; None where the RNG says otherwise.

    The RNG was at `before` when reading began, and stays where it is.
    """
    after = _rng()
    try:
        for times in (0, 1):
            _set_rng(before)
            _skip_draws(base, head, times)
            if all(one.equal(other) for one, other in zip(_rng(), after, strict=True)):
                return times
        return None
    finally:
        _set_rng(after)


def _rng() -> list[Tensor]:
    import torch

    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def _set_rng(states: list[Tensor]) -> None:
    import torch

    torch.set_rng_state(states[0])
    if states[1:]:
        torch.cuda.set_rng_state_all(states[1:])


def _text(*parts: Any) -> str:
    """A key that says all of `parts`, places included."""
    return json.dumps([plain(part, identity_only=False) for part in parts], sort_keys=True)


def _source_key(spec: RunSpec) -> str:
    task, data = spec.task, spec.data
    named = os.environ.get("LORA_XS_DATA")
    return _text(task.kind, task.name, task.revision, task.prompt, data.source, data.root, named)


def _rows_key(spec: RunSpec) -> str:
    task = spec.task
    sampled = task.train_rows is not None or (task.kind != "instruction" and task.validation_rows is not None)
    return _text(_source_key(spec), task.train_rows, task.validation_rows, task.take, spec.seed if sampled else None)
