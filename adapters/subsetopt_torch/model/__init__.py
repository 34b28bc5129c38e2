"""The user's model and batches: parts of a batch, outputs, losses, the scoring pass."""
