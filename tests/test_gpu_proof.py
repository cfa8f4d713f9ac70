"""The proof that is run on a GPU works, as far as a CPU can show."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROOF = Path(__file__).parents[1] / "benchmarks" / "gpu_proof.py"
SECTIONS = ["ceilings", "correctness", "compiled", "speed", "profile"]


def prove(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROOF), "--quick", "--out", str(out), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_figure_of_a_cpu_holds(tmp_path):
    done = prove(tmp_path / "proof.json", "--minutes", "9", "--only", *SECTIONS)
    assert done.returncode == 0, done.stdout
    result = json.loads((tmp_path / "proof.json").read_text())
    assert {figure["section"] for figure in result["findings"]} == set(SECTIONS)
    assert not [figure for figure in result["findings"] if figure["note"] == "no time left"]
    assert result["about"]["versions"]["torch"]


def test_a_figure_holds_within_its_bounds_and_a_missing_one_only_without():
    from gpu_proof import holds

    figure = {"what": "x", "value": None, "unit": "", "least": 0.0, "most": None, "note": ""}
    assert not holds({"section": "speed", **figure})
    assert holds({"section": "speed", **figure, "least": None})
    assert not holds({"section": "speed", **figure, "value": float("nan")})
    assert holds({"section": "speed", **figure, "value": 1.0, "most": 2.0})
    assert not holds({"section": "speed", **figure, "value": 3.0, "most": 2.0})
