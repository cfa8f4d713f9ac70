"""Which trials are tried and which end early: everything of Ray Tune."""
