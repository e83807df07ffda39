"""The loss of responses: whatever layout, split or padding computes it, the optimiser step is the same sum."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lora_xs.data.collate import ResponseCollator
from lora_xs.losses import NO_LABEL, response_logits, response_loss, token_losses
from lora_xs.training.batches import BatchOrder, Weighted, WeightedOrder, WeightedRows, token_weights

EOS = 2
LENGTHS = [
    (4, 9),
    (3, 12),
    (6, 7),
    (2, 20),
    (5, 5),
    (4, 6),
    (1, 11),
    (7, 15),
]  # (prompt, whole) tokens; one is all prompt


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 61}
    config = LlamaConfig(**shape, num_attention_heads=4, num_key_value_heads=2, attn_implementation="sdpa")
    return LlamaForCausalLM(config).double().eval()


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    draw = [torch.randint(3, 61, (whole - 1,), generator=generator).tolist() + [EOS] for _, whole in LENGTHS]
    return [{"input_ids": ids, "prompt_tokens": prompt} for ids, (prompt, _) in zip(draw, LENGTHS, strict=True)]


def weighted(rows: list[dict], group: int | None) -> list[dict]:
    counts = [len(row["input_ids"]) - row["prompt_tokens"] for row in rows]
    return [{**row, "weight": w} for row, w in zip(rows, token_weights(counts, group), strict=True)]


def gradients(model: LlamaForCausalLM, batches: list[dict]) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    total = 0.0
    for batch in batches:
        loss = response_loss(model, batch)
        loss.backward()
        total += loss.item()
    return total, torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("group", [None, 2])
def test_padded_free_and_split_batches_take_the_same_step(model, rows, group: int | None) -> None:
    drawn = weighted(rows, group)
    by_length = sorted(drawn, key=lambda row: -len(row["input_ids"]))
    padded, free, whole = (
        ResponseCollator(EOS),
        ResponseCollator(EOS, padding="free"),
        ResponseCollator(EOS, padding="max_length", max_length=32),
    )
    expected, direction = gradients(model, [padded(drawn)])
    for batches in (
        [free(drawn)],
        [whole(drawn)],
        [padded(by_length[i : i + 3]) for i in range(0, 8, 3)],
        [free(by_length[i : i + 2]) for i in range(0, 8, 2)],
        [padded([row]) for row in drawn],
    ):
        loss, gradient = gradients(model, batches)
        assert abs(loss - expected) < 1e-6 * abs(expected)
        assert (gradient - direction).norm() < 1e-5 * direction.norm()


def test_token_mean_is_the_library_models_own_loss(model, rows) -> None:
    batch = ResponseCollator(EOS)(weighted(rows, None))
    labels = torch.full_like(batch["input_ids"], -100)
    for line, row in enumerate(rows):
        labels[line, row["prompt_tokens"] : len(row["input_ids"])] = torch.tensor(row["input_ids"])[
            row["prompt_tokens"] :
        ]
    own = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
    assert abs(response_loss(model, batch) - own) < 1e-6


def test_micro_batch_mean_is_what_accumulating_micro_batches_computes(model, rows) -> None:
    losses = []
    for start in range(0, 8, 2):
        batch = ResponseCollator(EOS)(weighted(rows[start : start + 2], None))
        losses.append(response_loss(model, batch))
    expected = torch.stack(losses).mean()
    assert abs(response_loss(model, ResponseCollator(EOS)(weighted(rows, 2))) - expected) < 1e-6


def test_weights_of_all_tokens_add_up_to_one_and_silent_groups_are_left_out() -> None:
    for group in (None, 1, 2, 3):
        counts = [3, 0, 0, 0, 7, 1, 4]
        assert abs(sum(w * n for w, n in zip(token_weights(counts, group), counts, strict=True)) - 1) < 1e-12
    assert token_weights([0, 0], 1) == [0.0, 0.0]
    assert token_weights([1, 0, 0, 0, 2, 2], 2) == [0.5, 0.5, 0.0, 0.0, 0.125, 0.125]


def test_logits_are_computed_only_before_response_tokens(model, rows) -> None:
    free = ResponseCollator(EOS, padding="free")(weighted(rows, None))
    responses = sum(len(row["input_ids"]) - row["prompt_tokens"] for row in rows)
    labels, weights = free.pop("labels"), free.pop("label_weights")
    assert response_logits(model, free).shape[:2] == (1, responses) and labels.shape == weights.shape == (1, responses)
    assert (labels != NO_LABEL).all()


def test_the_end_of_sequence_is_learned_also_where_it_is_the_padding_token(rows) -> None:
    batch = ResponseCollator(EOS)(weighted(rows, None))
    answered = sum(len(row["input_ids"]) > row["prompt_tokens"] for row in rows)
    assert (batch["labels"] == EOS).sum() >= answered
    short = batch["attention_mask"].sum(dim=1).argmin()
    assert (batch["input_ids"][short, batch["attention_mask"][short] == 0] == EOS).all()


def test_a_batch_of_prompts_alone_costs_nothing_and_breaks_nothing(model) -> None:
    silent = [{"input_ids": [5, 6, 7], "prompt_tokens": 3, "weight": 0.0}]
    batch = ResponseCollator(EOS)(silent)
    assert response_loss(model, batch).item() == 0.0
    labels = batch.pop("labels")
    batch.pop("label_weights")
    assert token_losses(response_logits(model, batch), labels).sum().item() == 0.0


def test_every_draw_of_responses_is_the_draw_of_labels_with_a_weight() -> None:
    lengths = [10, 3, 8, 5, 9, 4, 7]
    plain, pairs = BatchOrder(lengths, 3, 1), WeightedOrder(lengths, [n - 2 for n in lengths], 3, 1, 2)
    for epoch in (0, 1):
        plain.set_epoch(epoch)
        pairs.set_epoch(epoch)
        drawn = list(pairs)
        assert [pair.row for pair in drawn] == list(plain)
        assert abs(sum(pair.weight * (lengths[pair.row] - 2) for pair in drawn[:3]) - 1) < 1e-12


def test_rows_are_asked_for_with_their_weight() -> None:
    rows = WeightedRows([{"input_ids": [1, 2], "prompt_tokens": 1}])
    assert rows[Weighted(0, 0.25)]["weight"] == 0.25 and rows[0]["weight"] == 1.0 and len(rows) == 1
