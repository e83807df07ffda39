"""The processes of one run: how they find each other, agree on what only one of them knows, and part.

A run over several processes is started by `lora_xs.spawning`, by torchrun, or by srun with torchrun's variables set.
The first process holds the lease and writes the folder; the others do as they are told. Alone, every function here is
what it would be without the others, and torch is not imported. Words travel as bytes of JSON, never as pickles.
Not run here: GPUs (NCCL), more than one machine.
"""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from lora_xs import raised
from lora_xs.errors import UserError

if TYPE_CHECKING:
    from lora_xs.spec.sections import TrainerSpec

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others' gradients before it gives up."""
PATIENCE = timedelta(days=1)
"""How long it waits for a word: the first may score or answer tests for hours. That one died is noticed at once all
the same: its connections close."""
FAREWELL = timedelta(seconds=5)
VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

_words: Any = None  # the group that words go through: on the CPU, so that no GPU has to wait for one
_met: Any = None  # the same, kept for this process's next run: nobody can meet twice under torchrun's one address


def asked() -> int:
    """How many processes this one was started among, by its environment; 1: it is alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def place() -> tuple[int, int]:
    """(this process's number, how many there are); (0, 1) for a process that is alone."""
    if _words is None:
        return 0, 1
    from torch import distributed as dist

    return dist.get_rank(), dist.get_world_size()


def first() -> bool:
    """Whether this process writes, prints and decides."""
    return place()[0] == 0


@contextmanager
def joined(trainer: TrainerSpec) -> Iterator[None]:
    """Make the run's processes known to each other while the block lasts.

    Raises UserError where fewer or more were started than `trainer.processes` says (1 takes any number), or where the
    machine cannot do what `trainer.sharding` asks for.
    """
    global _words, _met
    count = asked()
    if trainer.processes not in (1, count):
        raise UserError(
            f"trainer.processes={trainer.processes}, but this is one of {count}; start the run with train.py or "
            f"`torchrun --nproc-per-node {trainer.processes} train.py …`"
        )
    if trainer.sharding != "none" and count == 1:
        raise UserError(
            f"trainer.sharding={trainer.sharding} needs several processes; give trainer.processes=2 or more"
        )
    if count == 1:
        yield
        return
    missing = [name for name in VARIABLES if name not in os.environ]
    if missing:  # without LOCAL_RANK, for one, accelerate lets every process train alone and says nothing
        raise UserError(f"WORLD_SIZE={count} is set but {missing[0]} is not; start the run with train.py or torchrun")
    _words = _met = _meet(trainer, count)
    try:
        yield
    finally:
        _part()


def told(action: Callable[[], T]) -> T:
    """What `action` returns or raises in the first process, in all of them; it runs in the first alone.

    What it returns must be JSON: the others get it as JSON gives it back, with lists for tuples. Of what it raises the
    exceptions that `lora_xs.raised` knows keep their type, any other is a RuntimeError there.
    """
    if _words is None:
        return action()
    if not first():
        return _heard()
    try:
        value = action()
        word = _encoded({"value": value})
    except BaseException as error:
        _say_raised(error)
        raise
    _broadcast(word)
    return value


@contextmanager
def by_itself() -> Iterator[None]:
    """Meanwhile this process is alone: for what the first does while the others wait in `told`."""
    global _words
    words, _words = _words, None
    try:
        yield
    finally:
        _words = words


def of_each(action: Callable[[], T]) -> list[T]:
    """What `action` returns in every process, in their order, as JSON gives it back; what it raises in one of them, as
    in `told`, in all."""
    if _words is None:
        return [action()]
    failure: BaseException | None = None
    word: dict[str, Any] = {}
    try:
        word["value"] = action()
    except BaseException as error:
        failure, word["raised"] = error, raised.to_json(error)
    words = gathered(word)
    if failure is not None:
        raise failure
    for other in words:
        if "raised" in other:
            raise raised.from_json(other["raised"])
    return [other["value"] for other in words]


@contextmanager
def first_in_turn() -> Iterator[None]:
    """The first process does the block before the others: what it leaves in a store need not be computed again."""
    if _words is None:
        yield
    elif first():
        try:
            yield
        except BaseException as error:
            _say_raised(error)
            raise
        _broadcast(_encoded({"value": None}))
    else:
        _heard()
        yield


def most(*numbers: float) -> tuple[float, ...]:
    """The largest of each over all processes."""
    return tuple(_reduced(numbers, "MAX", "float64")) if _words is not None else numbers


def summed(numbers: Sequence[float]) -> list[float]:
    """Each number's sum over all processes, in fp64."""
    return _reduced(numbers, "SUM", "float64") if _words is not None and numbers else list(numbers)


def counted(numbers: Sequence[int]) -> list[int]:
    """Each whole number's sum over all processes, modulo 2⁶⁴."""
    if _words is None:
        return list(numbers)
    signed = [(n + 2**63) % 2**64 - 2**63 for n in numbers]  # int64 wraps around, so the sum is right modulo 2⁶⁴
    return [n % 2**64 for n in _reduced(signed, "SUM", "int64")]


def gathered(value: T) -> list[T]:
    """Every process's value, which must be JSON, in their order: as JSON gives it back, where there are several."""
    return [value] if _words is None else [json.loads(data) for data in gathered_bytes(_encoded(value))]


def gathered_bytes(data: bytes) -> list[bytes]:
    """Every process's bytes, in their order."""
    if _words is None:
        return [data]
    import torch
    from torch import distributed as dist

    lengths = [torch.empty(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
    dist.all_gather(lengths, torch.tensor([len(data)]), group=_words)
    longest = max(int(length) for length in lengths)
    own = torch.frombuffer(bytearray(data.ljust(longest, b"\0")), dtype=torch.uint8) if longest else torch.empty(0)
    found = [torch.empty_like(own) for _ in lengths]
    if longest:
        dist.all_gather(found, own, group=_words)
    return [bytes(one.numpy())[: int(length)] for one, length in zip(found, lengths, strict=True)]


def _meet(trainer: TrainerSpec, count: int) -> Any:
    import torch
    from accelerate import PartialState
    from torch import distributed as dist

    gpus = torch.cuda.device_count()
    _check_machine(trainer, count, gpus)
    os.environ.pop("ACCELERATE_USE_FSDP", None)  # what a sharded run before left would shard this one, unasked
    if _met is not None:
        return _met
    PartialState(cpu=not gpus, timeout=TIMEOUT)
    if not dist.is_initialized() or dist.get_world_size() != count:
        raise RuntimeError(f"{count} processes were started, but this one trains alone")
    return dist.new_group(backend="gloo", timeout=PATIENCE)


def _check_machine(trainer: TrainerSpec, count: int, gpus: int) -> None:
    if trainer.sharding != "none" and not gpus:
        raise UserError(
            f"trainer.sharding={trainer.sharding} needs GPUs: on a CPU accelerate would copy the model instead of "
            "sharding it and say nothing; use trainer.sharding=none"
        )
    if gpus and int(os.environ["LOCAL_RANK"]) >= gpus:
        raise UserError(f"trainer.processes={count}: this machine has {gpus} GPUs, each takes one process; start fewer")


def _part() -> None:
    """Leave together: who goes first may have the others killed by torchrun before their last file is written."""
    global _words
    from torch import distributed as dist

    _words = None
    with suppress(Exception):  # some may be gone
        dist.monitored_barrier(_met, timeout=FAREWELL)
        atexit.unregister(_leave)
        atexit.register(_leave)


def _leave() -> None:
    from torch import distributed as dist

    dist.destroy_process_group()


def _encoded(word: Any) -> bytes:
    return json.dumps(word).encode()


def _say_raised(error: BaseException) -> None:
    with suppress(Exception):  # who is to hear it may be gone
        _broadcast(_encoded({"raised": raised.to_json(error)}))


def _heard() -> Any:
    word = json.loads(_broadcast(b""))
    if "raised" in word:
        error: Any = raised.from_json(word["raised"])
        error.told = True
        raise error
    return word["value"]


def _broadcast(data: bytes) -> bytes:
    """The first process's bytes, of which there is at least one, in all of them."""
    import torch
    from torch import distributed as dist

    length = torch.tensor([len(data)])
    dist.broadcast(length, src=0, group=_words)
    shared = torch.frombuffer(bytearray(data), dtype=torch.uint8) if first() else torch.empty(int(length)).byte()
    dist.broadcast(shared, src=0, group=_words)
    return bytes(shared.numpy())


def _reduced(numbers: Sequence[float], how: str, dtype: str) -> list[Any]:
    import torch
    from torch import distributed as dist

    shared = torch.tensor(list(numbers), dtype=getattr(torch, dtype))
    dist.all_reduce(shared, op=getattr(dist.ReduceOp, how), group=_words)
    return list(shared.tolist())
