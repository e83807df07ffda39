"""Bytes of a user's state, against the papers' counts."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from state_size import EXAMPLES, GPT3, GPT3_WIDTH, MISTRAL_7B, ROBERTA_LARGE, StateSize, lora_bytes


def test_state_of_a_user_has_the_published_parameters():
    assert StateSize(ROBERTA_LARGE, 25).parameters == 60_000 and StateSize(ROBERTA_LARGE, 25).bytes == 240_000
    assert StateSize(MISTRAL_7B, 64).parameters == 917_504 and StateSize(MISTRAL_7B, 64).bytes == 3_670_016


def test_the_paper_s_96_gb_for_a_million_users_is_rank_16_on_query_and_value_in_half_precision():
    user = dict(EXAMPLES)["GPT-3 (q, v), r=16, half"]
    assert user == StateSize(GPT3, 16, 2) and user.bytes == 96 * 1024
    lora = lora_bytes([(GPT3_WIDTH, GPT3_WIDTH)] * GPT3, 16, 2)
    assert lora == 144 * 2**20 and lora == user.bytes * 2 * GPT3_WIDTH // 16
