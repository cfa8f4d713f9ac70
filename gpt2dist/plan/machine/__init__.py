"""What there is to compute on: GPUs, prices, and what a run costs from boot to end."""
