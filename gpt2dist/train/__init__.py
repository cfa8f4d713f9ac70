"""The loop, the engine below it, the checkpoints beside it and Ray Train around it."""
