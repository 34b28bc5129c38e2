"""The selective training step."""
