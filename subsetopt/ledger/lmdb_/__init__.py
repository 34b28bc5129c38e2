"""LMDB: records of any id in a folder, for many processes of one machine."""
