"""LoRA-XS as a PEFT tuner. Importing this package registers the method, under the name LORA_XS."""

from __future__ import annotations

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from lora_xs.adapters.tuner.config import LoraXsConfig, LoraXsType
from lora_xs.adapters.tuner.layer import LoraXsLayer
from lora_xs.adapters.tuner.linear import LoraXsLinear
from lora_xs.adapters.tuner.model import PREFIX, LoraXsModel

__all__ = ["LoraXsConfig", "LoraXsLayer", "LoraXsLinear", "LoraXsModel", "LoraXsType"]

PEFT_TYPE_TO_CONFIG_MAPPING[LoraXsType.LORA_XS] = LoraXsConfig
PEFT_TYPE_TO_TUNER_MAPPING[LoraXsType.LORA_XS] = LoraXsModel
PEFT_TYPE_TO_PREFIX_MAPPING[LoraXsType.LORA_XS] = PREFIX
