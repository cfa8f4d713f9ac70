"""What `gpt2dist track` refuses; what it does is tested on a real run elsewhere."""


def test_a_run_that_is_not_there_is_one_line(refused):
    assert "no run at 'nobody'" in refused(["track", "sync", "nobody"])
