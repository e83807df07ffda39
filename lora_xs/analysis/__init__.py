"""What is found out about finished runs and architectures without training: App. E and F of LoRA-XS, costs.

Stands above runs and sweeps, whose records, weights and shapes it reads. Importing this imports no torch.
"""
