"""A room imports only from lower floors, its folders only from those before them, and heavy
packages stay in their rooms."""

import ast
from collections.abc import Iterator
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


INSIDE = {
    "plan": ("machine", "memory", "speed", "loss"),
    "data": ("prepare", "serve"),
    "sweep": ("spec", "cost", "trial", "search", "report"),
    "compare": ("read", "stats", "show"),
    "train": ("core",),
    "launch": ("machine",),
}
"The folders of a room; each imports from those before it only."
LOW = {
    "plan": {"arithmetic", "layout"},
    "data": {"shards", "tokenizer"},
    "launch": {"allowance"},
}
"Files of a room that its folders may import; they import nothing of the room but each other."
MOST_LINES = 300
SHARED_NAMES = {
    "add_parser": "what every verb of the command line has",
    "run": "what every verb of the command line has",
    "main": "what `python -m` starts",
}
"Public names that exist more than once on purpose."


def own_imports(path: Path) -> list[tuple[str, ...]]:
    """The modules of the package that a file imports, as folder names and the module's name."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = (node.module or "").split(".")
            names = [[*base, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            base, names = [], [alias.name.split(".") for alias in node.names]
        else:
            continue
        for words in [base, *names]:
            if (
                words[:1] == ["gpt2dist"]
                and PACKAGE.joinpath(*words[1:]).with_suffix(".py").is_file()
            ):
                found.append(tuple(words[1:]))
    return found


def inside_problems() -> Iterator[str]:
    for path in FILES:
        own = path.relative_to(PACKAGE).with_suffix("").parts
        order, low = INSIDE.get(own[0], ()), LOW.get(own[0], set())
        for other in own_imports(path):
            if other[0] != own[0] or other == own:
                continue
            if len(own) == 2 and own[1] in low:
                allowed = len(other) == 2 and other[1] in low
            elif len(own) == 3 and len(other) == 2:
                allowed = other[1] in low
            elif len(own) == 3:
                allowed = order.index(other[1]) <= order.index(own[1])
            else:
                allowed = True
            if not allowed:
                yield f"{'/'.join(own)} -> {'/'.join(other)}"


def size_problems() -> Iterator[str]:
    for path in FILES:
        if len(path.read_text().splitlines()) > MOST_LINES:
            yield f"{path.relative_to(PACKAGE.parent).as_posix()} is too long"


def name_problems() -> Iterator[str]:
    homes: dict[str, set[Path]] = {}
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_":
                homes.setdefault(node.name, set()).add(path)
    for name, paths in homes.items():
        if len(paths) > 1 and name not in SHARED_NAMES:
            yield f"{name} is there twice"


def private_problems() -> Iterator[str]:
    """Names with an underscore belong to their module alone."""
    for path in FILES:
        tree = ast.parse(path.read_text())
        modules = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gpt2dist"):
                modules |= {alias.asname or alias.name for alias in node.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gpt2dist"):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                names = [node.attr] if node.value.id in modules else []
            else:
                continue
            for name in names:
                if name.startswith("_") and not name.startswith("__"):
                    yield f"{path.relative_to(PACKAGE.parent).as_posix()} takes {name} of another"


RULES = (inside_problems, size_problems, name_problems, private_problems)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_is_in_order(rule):
    assert sorted(rule()) == []


def test_every_folder_of_a_room_has_its_place():
    there = {path.parent for path in FILES if len(path.relative_to(PACKAGE).parts) > 2}
    named = {PACKAGE / room / folder for room, folders in INSIDE.items() for folder in folders}
    assert there == named
