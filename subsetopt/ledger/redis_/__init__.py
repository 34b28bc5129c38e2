"""Redis and Valkey: records of any id on a server, for many machines."""
