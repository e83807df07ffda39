"""Base models and their tokenizers: found, checked, loaded; or their shapes alone. Importing this imports no torch."""

from lora_xs.models.decoder import load_decoder
from lora_xs.models.encoder import load_base
from lora_xs.models.location import Location, locate, weight_digests
from lora_xs.models.meta import load_on_meta
from lora_xs.models.tokenizer import describe_tokenizer, load_tokenizer

__all__ = [
    "Location",
    "describe_tokenizer",
    "load_base",
    "load_decoder",
    "load_on_meta",
    "load_tokenizer",
    "locate",
    "weight_digests",
]
