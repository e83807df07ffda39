"""How the papers call things: tasks, methods, models, coordinates."""

from __future__ import annotations

LABELS: dict[str, dict[str, str]] = {
    "task": {
        **{"sst2": "SST-2", "mrpc": "MRPC", "cola": "CoLA", "qnli": "QNLI", "rte": "RTE", "stsb": "STS-B"},
        **{"mnli": "MNLI", "gsm8k": "GSM8K", "math": "MATH", "boolq": "BoolQ", "piqa": "PIQA", "siqa": "SIQA"},
        **{"hellaswag": "HellaSwag", "winogrande": "WinoGrande", "arc_easy": "ARC-e", "arc_challenge": "ARC-c"},
        **{"obqa": "OBQA", "openbookqa": "OBQA", "word_problems": "word problems", "avg": "Avg."},
    },
    "method": {
        **{"full_ft": "Full FT", "head_only": "head only", "lora": "LoRA", "rslora": "rsLoRA", "pissa": "PiSSA"},
        **{"vera": "VeRA", "dora": "DoRA", "lora_pro": "LoRA-Pro", "lora_xs": "LoRA-XS", "lora_sb": "LoRA-SB"},
    },
    "model": {
        **{"roberta-large": "RoBERTa-large", "mistral-7b-v0.1": "Mistral-7B", "gemma-7b": "Gemma-7B"},
        **{"gemma2-9b": "Gemma-2 9B", "llama2-7b": "LLaMA2-7B", "llama3-8b": "LLaMA3-8B"},
        **{"llama3.2-3b": "Llama-3.2 3B"},
    },
    "init": {
        **{"random": "Random", "svd_random": "SVD of random", "svd_w": "SVD of W", "svd_w_bottom": "bottom SVD of W"},
        "svd_w_no_sigma": "SVD of W without Σ",
    },
    "a_init": {"u_sigma": "A with Σ", "u": "A without Σ"},
    "reading": {"likelihood": "by likelihood", "generation": "by generation"},
    "when": {"epoch1": "epoch 1", "epoch2": "epoch 2", "best": "best epoch"},
    "variant": {"orthonormal": "orthonormal", "non_orthonormal": "not orthonormal"},
    "decomposed_matrix": {
        "kaiming": "Kaiming",
        "update": "ΔW",
        **{f"update_plus_noise_1e-{n}": f"ΔW + noise 1e-{n}" for n in (2, 3, 4, 5)},
    },
    "quantity": {
        **{"finetune_seconds": "fine-tuning (s)", "svd_init_seconds": "SVD (s)", "overhead_percent": "overhead (%)"},
        **{"init_seconds": "initialisation (s)", "epoch_seconds": "epoch (s)", "macs": "MACs", "flops": "FLOPs"},
        **{"lr": "LR", "classifier_lr": "classifier LR", "epochs": "epochs"},
    },
}
"""Coordinate → value as in the files → as printed."""
HEADS = {
    **{"method": "Method", "rank": "Rank", "model": "Model", "task": "Task", "init": "Initialisation"},
    **{"lr": "LR", "classifier_lr": "classifier LR", "head_lr": "head LR", "retained_fraction": "Fraction"},
    **{"module": "Module", "subset": "Singular vectors", "singular_vectors": "Singular vectors", "when": "After"},
    **{"init_samples": "Samples", "decomposed_matrix": "Decomposed", "variant": "Factors", "a_init": "A"},
    **{"reading": "Read", "sequence_length": "Length", "epochs": "Epochs", "quantity": "Quantity"},
}
SELF_SPOKEN = ("task", "model", "method", "init", "a_init", "module")
"""Coordinates whose values need no name beside them."""
METRICS = {"response_loss": "loss", "": "score", "training": "seconds of training"}


def label(key: str, value: str) -> str:
    """The value of a coordinate as the papers print it."""
    return LABELS.get(key, {}).get(value, value)


def head(key: str) -> str:
    """The name of a coordinate."""
    return HEADS.get(key, key.replace("_", " "))


def named(key: str, value: str) -> str:
    """A coordinate in words: `SST-2`, `rank 4`; empty where it has no value."""
    text = label(key, value)
    return text if key in SELF_SPOKEN or not text else f"{head(key).lower()} {text}"


def metric_label(metric: str) -> str:
    """The name of a metric."""
    return METRICS.get(metric, metric.replace("_", " "))
