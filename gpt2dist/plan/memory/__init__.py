"""Does it fit? One GPU's memory, from byte counts."""
