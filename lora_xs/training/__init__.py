"""Training: the Hugging Face Trainer, two learning rates, exact accumulation, checkpoints that resume bitwise."""
