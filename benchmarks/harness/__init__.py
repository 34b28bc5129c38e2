"""What the commands share: instances, runners, stores, tables and plots."""
