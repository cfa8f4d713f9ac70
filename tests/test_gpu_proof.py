"""The proof that is run on a GPU: which figures it lets pass."""

from gpu_proof import holds

FIGURE = {"section": "speed", "what": "x", "unit": "", "least": None, "most": None, "note": ""}


def test_a_figure_holds_within_its_bounds_and_a_missing_one_only_without():
    assert holds({**FIGURE, "value": None})
    assert not holds({**FIGURE, "value": None, "least": 0.0})
    assert not holds({**FIGURE, "value": float("nan"), "most": 1.0})
    assert holds({**FIGURE, "value": 1.0, "least": 1.0, "most": 2.0})
    assert not holds({**FIGURE, "value": 3.0, "least": 1.0, "most": 2.0})
