"""The loop, the engine below it and the checkpoints beside it; no Ray."""
