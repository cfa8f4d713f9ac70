"""A module's test is found by the module's name, or is named here."""

import ast
import functools
from pathlib import Path

import pytest

import gpt2dist

PACKAGE = Path(gpt2dist.__file__).parent
TESTS = Path(__file__).parent
MODULES = sorted(
    path.relative_to(PACKAGE).with_suffix("").as_posix()
    for path in PACKAGE.rglob("*.py")
    if not path.name.startswith("__")
)
ELSEWHERE = {
    "errors": "cli/test_main.py",
    "stop_signal": "train/test_driver.py",
    "cli/arguments": "cli/test_main.py",
    "cli/checkpoint": "train/test_driver.py",
    "compare/command": "compare/stats/test_comparison.py",
    "compare/read": "compare/stats/test_comparison.py",
    "compare/read/references": "compare/stats/test_comparison.py",
    "compare/show": "compare/show/test_page.py",
    "config/schema": "config/test_bounds.py",
    "data/prepare": "data/prepare/test_pipeline.py",
    "data/serve": "data/serve/test_stream.py",
    "launch": "launch/test_start.py",
    "launch/machine/allot": "launch/machine/test_rented.py",
    "launch/machine": "launch/machine/test_mirror.py",
    "plan": "plan/test_planner.py",
    "plan/loss": "plan/loss/test_predict.py",
    "plan/machine": "plan/machine/test_prices.py",
    "plan/memory": "plan/memory/test_fit.py",
    "plan/speed": "plan/speed/test_throughput.py",
    "plan/speed/probes": "train/test_probe.py",
    "sweep": "sweep/test_run.py",
    "track": "track/test_mlflow_log.py",
    "track/drawing": "track/test_curve.py",
    "track/mlflow_read": "compare/read/test_mlflow_runs.py",
    "track/versions": "track/test_summary.py",
    "train": "train/test_driver.py",
    "train/core": "train/core/test_loop.py",
}
"A module, or all of a folder that have no test of their name, and the test that runs them."


def home(module: str) -> Path | None:
    folder, _, name = module.rpartition("/")
    own = TESTS / folder / f"test_{name}.py"
    if own.is_file():
        return own
    while module not in ELSEWHERE:
        module, slash, _ = module.rpartition("/")
        if not slash:
            return None
    return TESTS / ELSEWHERE[module]


@functools.cache
def imported(source: Path) -> set[str]:
    """The modules that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@functools.cache
def reached(test: Path) -> set[str]:
    """Modules of the package that a test reaches by imports, its folder's conftest included."""
    waiting = [path for path in (test, test.parent / "conftest.py") if path.is_file()]
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        for name in imported(path):
            first, _, rest = name.partition(".")
            root = {"gpt2dist": PACKAGE, "tests": TESTS}.get(first)
            file = root and root.joinpath(*rest.split(".")).with_suffix(".py")
            if file and file.is_file() and file not in seen:
                waiting.append(file)
    return {
        path.relative_to(PACKAGE).with_suffix("").as_posix()
        for path in seen
        if path.is_relative_to(PACKAGE)
    }


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_a_test_that_reaches_it(module):
    test = home(module)
    assert test, f"no tests/{module.rpartition('/')[0]}/test_{module.rpartition('/')[2]}.py"
    assert test.is_file(), f"{test} is gone"
    started_as_a_process = {"launch/machine/allot", "sweep/print_folder", "sweep/trial/process"}
    if module not in started_as_a_process:
        assert module in reached(test), f"{test} never reaches {module}"


def test_every_row_of_the_list_is_needed():
    folders = {"/".join(module.split("/")[:end]) for module in MODULES for end in (1, 2, 3)}
    assert set(ELSEWHERE) <= folders | set(MODULES)
    named = {
        m
        for m in MODULES
        if (TESTS / f"{m.rpartition('/')[0]}/test_{m.split('/')[-1]}.py").is_file()
    }
    assert not set(ELSEWHERE) & named
