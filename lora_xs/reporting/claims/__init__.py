"""What the papers assert in words, each a small test over cells and records, and over the papers' own numbers."""
