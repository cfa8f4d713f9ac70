"""A room imports only from lower floors, and heavy packages stay in their rooms."""

import ast
from pathlib import Path

import pytest

import gpt2dist

PACKAGE = Path(gpt2dist.__file__).parent
FLOOR = {
    "errors": 0,
    "human": 0,
    "disk": 0,
    "ray_session": 0,
    "run_files": 0,
    "stop_signal": 0,
    "config": 0,
    "plan": 1,
    "model": 1,
    "data": 1,
    "track": 1,
    "evaluate": 2,
    "train": 3,
    "compare": 4,
    "launch": 4,
    "sweep": 4,
    "cli": 5,
    "__main__": 5,
}
HEAVY = {"torch", "deepspeed", "ray", "mlflow", "datasets", "tiktoken", "matplotlib", "sky"}
ALLOWED = {
    "config": set(),
    "errors": set(),
    "human": set(),
    "disk": set(),
    "ray_session": {"ray"},
    "run_files": set(),
    "stop_signal": set(),
    "plan": set(),
    "model": {"torch"},
    "data": {"torch", "ray", "tiktoken", "datasets"},
    "track": {"mlflow", "matplotlib"},
    "evaluate": {"torch"},
    "train": {"torch", "deepspeed", "ray"},
    "compare": {"matplotlib"},
    "launch": {"sky"},
    "sweep": {"ray", "matplotlib"},
    "cli": set(),
    "__main__": set(),
}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[str, bool]]:
    """Dotted module names a file imports, and whether at module level."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append((node.module or "", id(node) in top))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_only_downwards(path):
    own = room(path)
    for module, _ in imports(path):
        parts = module.split(".")
        if parts[0] == "gpt2dist" and len(parts) > 1 and parts[1] != own:
            assert FLOOR[parts[1]] <= FLOOR[own], f"{path} imports {module} from a higher floor"
            if FLOOR[parts[1]] == FLOOR[own]:
                beside = ("config", "disk", "ray_session", "run_files", "errors", "__main__")
                assert own in beside, f"{path} imports sibling {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_packages_stay_in_their_rooms(path):
    for module, _ in imports(path):
        package = module.split(".")[0]
        if package in HEAVY:
            assert package in ALLOWED[room(path)], f"{path} imports {module}"


def test_only_one_module_touches_deepspeed_and_two_touch_ray():
    users = {"deepspeed": set(), "ray": set()}
    for path in FILES:
        for module, _ in imports(path):
            package = module.split(".")[0]
            if package in users:
                users[package].add(path.relative_to(PACKAGE).as_posix())
    assert users["deepspeed"] == {"train/core/engine.py"}
    assert {name for name in users["ray"] if name.startswith("train/")} == {"train/ray_run.py"}


def test_nothing_imports_ray_mlflow_or_sky_at_module_level():
    for path in FILES:
        for module, at_top in imports(path):
            assert not (at_top and module.split(".")[0] in {"ray", "mlflow", "sky", "matplotlib"})
