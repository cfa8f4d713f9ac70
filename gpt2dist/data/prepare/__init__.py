"""Text to token shards, once."""
