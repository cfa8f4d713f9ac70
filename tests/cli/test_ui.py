"""What `gpt2dist ui` refuses; what it does is tested on a real run elsewhere."""


def test_a_store_that_is_not_there_is_one_line(refused):
    assert "no MLflow store" in refused(["ui"])
