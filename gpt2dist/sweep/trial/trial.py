"""One trial of a sweep: which values it takes, and what its run is called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpt2dist.config.load import from_tree, to_tree
from gpt2dist.config.schema import Config
from gpt2dist.errors import BadInput
from gpt2dist.sweep.spec.schema import Sweep
from gpt2dist.sweep.spec.space import Values

NAME_CHARACTERS = 90


@dataclass(frozen=True)
class Trial:
    number: int
    point: int
    "Trials of one point differ in their seed only."
    values: Values
    seed: int
    name: str
    "Of its folder in the sweep's folder."
    config: Config

    @property
    def tokens(self) -> int:
        return self.config.total_steps * self.config.train.batch_tokens


def make_trial(sweep: Sweep, number: int, point: int, values: Values, seed: int) -> Trial:
    """Raises BadInput naming the point when its values cannot be trained together."""
    config = point_config(sweep, values, seed)
    several = len(sweep.seeds) > 1
    return Trial(number, point, values, seed, _name(number, values, seed, several), config)


def point_config(sweep: Sweep, values: Values, seed: int) -> Config:
    """The config of a point, typed and checked; the sweep's own placement is not in it."""
    tree = to_tree(sweep.config)
    for path, value in {**values, "train.seed": seed}.items():
        section, _, key = path.partition(".")
        tree[section][key] = value
    try:
        return from_tree(tree, sweep.file)
    except BadInput as error:
        raise BadInput(f"the point {describe(values)} cannot run: {error}") from None


def describe(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{path}={short(value)}" for path, value in values.items())


def short(value: Any) -> str:
    """`6e-4`, `0.003`, `true`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        plain, power = f"{value:.4g}", _power(value)
        return power if len(power) < len(plain) else plain
    return str(value)


def labels(paths: Sequence[str]) -> dict[str, str]:
    """The shortest name of each path that is still its own: `peak_lr` for `optim.peak_lr`."""
    last = [path.rpartition(".")[2] for path in paths]
    return {path: name if last.count(name) == 1 else path for path, name in zip(paths, last)}


def _name(number: int, values: Values, seed: int, several: bool) -> str:
    names = labels(list(values))
    parts = [f"{names[path]}-{short(value)}" for path, value in values.items()]
    if several:
        parts.append(f"seed-{seed}")
    text = re.sub(r"[^\w.+-]+", "_", "-".join(parts))[:NAME_CHARACTERS]
    return f"{number:03d}-{text}"


def _power(value: float) -> str:
    mantissa, _, exponent = f"{value:.3e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
