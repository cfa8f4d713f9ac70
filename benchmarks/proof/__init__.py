"""The sections of `gpu_proof.py`: each measures one thing and says what it must at least reach."""
