"""Records in a memory-mapped file, one slot for every id from 0 on."""
