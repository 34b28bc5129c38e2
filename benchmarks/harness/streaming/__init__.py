"""A model that serves a stream in one process and is trained in another."""
