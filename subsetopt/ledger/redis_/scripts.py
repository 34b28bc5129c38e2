"""What the Redis server itself does, so that of two writers the later step wins.

A record lies in a hash of up to 256 of them, which the server keeps packed. An integer's place is
its key: all but the last byte name the hash, the last byte the field. The place of another id is
``h``, two bytes of a hash of its key, and the key.
"""

from __future__ import annotations

import zlib

from subsetopt.ledger.keyed.keys import INTEGER

__all__ = ["DELETE", "READ", "WRITE", "key_of", "place_of"]

_HASHED = b"h"

# Returns the names of the hash and of the field of a place. 105 is the letter i.
_SPLIT = """
local function split(place)
    local cut = place:byte(1) == 105 and 8 or 3
    return KEYS[1] .. place:sub(1, cut), place:sub(cut + 1)
end
"""

# KEYS: prefix, head. ARGV: all records, then their places. Returns how many were stored.
WRITE = (
    _SPLIT
    + """
local fresh, stored = 0, 0
for i = 2, #ARGV do
    local bucket, field = split(ARGV[i])
    local record = ARGV[1]:sub(24 * i - 47, 24 * i - 24)
    local there = redis.call('HGET', bucket, field)
    local wins = true
    if there and #there == 24 then
        local low, high = struct.unpack('<I4I4', record, 9)
        local low_there, high_there = struct.unpack('<I4I4', there, 9)
        wins = high > high_there or (high == high_there and low >= low_there)
    end
    if wins then
        fresh = fresh + redis.call('HSET', bucket, field, record)
        stored = stored + 1
    end
end
redis.call('HINCRBY', KEYS[2], 'records', fresh)
return stored
"""
)

# KEYS: prefix. ARGV: places. Returns all records; one that is no record does not pass its check.
READ = (
    _SPLIT
    + """
local missing, broken = string.rep('\\0', 24), string.rep('\\255', 24)
local found = {}
for i = 1, #ARGV do
    local bucket, field = split(ARGV[i])
    local record = redis.call('HGET', bucket, field)
    found[i] = not record and missing or #record == 24 and record or broken
end
return table.concat(found)
"""
)

# KEYS: prefix, head. ARGV: a record and its place. Deletes it if it is still this one.
DELETE = (
    _SPLIT
    + """
local bucket, field = split(ARGV[2])
if redis.call('HGET', bucket, field) == ARGV[1] then
    redis.call('HDEL', bucket, field)
    redis.call('HINCRBY', KEYS[2], 'records', -1)
end
"""
)


def place_of(key: bytes) -> bytes:
    """Return the place of a key."""
    if key.startswith(INTEGER):
        return key
    return _HASHED + zlib.crc32(key).to_bytes(4, "big")[:2] + key


def key_of(bucket: bytes, field: bytes) -> bytes:
    """Return the key whose record lies in a field of a hash, named without the prefix."""
    return field if bucket.startswith(_HASHED) else bucket + field
