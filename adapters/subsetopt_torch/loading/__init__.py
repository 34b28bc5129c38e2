"""What a data loader loads: batches of indices chosen by a policy."""
