"""Processes that write and read ledgers, are killed, and are held to what was recorded."""
