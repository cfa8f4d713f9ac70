"""Text to token shards, and shards to training windows."""
