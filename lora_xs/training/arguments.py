"""What the Trainer itself must know of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import TrainingArguments

from lora_xs.processes import TIMEOUT, place
from lora_xs.spec import RunSpec
from lora_xs.spec.layout import largest_share, most_rows, rows_at_once


def training_arguments(
    spec: RunSpec, folder: Path, validates: bool = True, layers: Sequence[str] = (), unpadded: bool = False
) -> TrainingArguments:
    """What of the spec the Trainer itself must know; optimiser, schedule, logging and saving are ours.

    validates: whether there are validation rows. layers: see `layers_to_shard`. unpadded: see `most_rows`.
    """
    trainer = spec.trainer
    _, world = place()
    most = most_rows(spec, torch.cuda.is_available(), unpadded)
    rows = rows_at_once(spec, most, world)
    each = "no" if spec.evaluation.every == "end" or not validates else spec.evaluation.every
    arguments = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        per_device_train_batch_size=rows,
        per_device_eval_batch_size=min(spec.evaluation.batch_size, 2 * most)
        if spec.task.kind == "instruction"
        else spec.evaluation.batch_size,
        gradient_accumulation_steps=-(-largest_share(spec, world) // rows),
        num_train_epochs=trainer.epochs,
        max_steps=trainer.max_steps or -1,
        max_grad_norm=trainer.max_grad_norm,
        seed=spec.seed,
        data_seed=spec.seed,
        bf16=trainer.precision == "bf16",
        fp16=trainer.precision == "fp16",
        activation_checkpointing=trainer.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if trainer.gradient_checkpointing else None,
        torch_compile=bool(trainer.compile),
        torch_compile_mode="reduce-overhead" if trainer.compile == "cuda_graphs" else None,
        eval_strategy=each,
        eval_steps=spec.evaluation.steps,
        save_strategy="epoch",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        accelerator_config={"non_blocking": torch.cuda.is_available()},
        ddp_broadcast_buffers=False,
        ddp_find_unused_parameters=False,
        ddp_timeout=int(TIMEOUT.total_seconds()),
        fsdp=trainer.sharding == "fsdp",
        fsdp_config={
            "version": 2,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "transformer_layer_cls_to_wrap": list(layers),
            "reshard_after_forward": True,
        }
        if trainer.sharding == "fsdp"
        else None,
    )
    if arguments.fsdp_plugin_args is not None:
        # accelerate would round weights and summed gradients to bf16; one process rounds what it multiplies alone
        arguments.fsdp_plugin_args["mixed_precision_policy"] = MixedPrecisionPolicy()
    # after the arguments, which turn TF32 on by themselves where a model is compiled
    torch.set_float32_matmul_precision("high" if trainer.precision == "tf32" else "highest")
    return one_device(arguments)


def one_device(arguments: TrainingArguments) -> TrainingArguments:
    """A process computes on one device: with a second GPU in sight the Trainer would split each batch over both by
    DataParallel, under losses that count the rows of the whole."""
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
