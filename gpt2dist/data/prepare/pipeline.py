"""Text to a dataset folder, once: every unit's files are whole or absent, so any end can go on."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

from gpt2dist.config.schema import DataConfig
from gpt2dist.data.prepare.corpus import plan_units
from gpt2dist.data.prepare.finish import finish, no_text, now
from gpt2dist.data.prepare.progress import Report, UnitsDone
from gpt2dist.data.prepare.unit_shards import (
    Preparation,
    files_present,
    read_finished,
    run_here,
    run_on_ray,
)
from gpt2dist.data.shards import (
    FORMAT,
    UNFINISHED,
    Dataset,
    is_dataset_folder,
    load_dataset_folder,
    require,
)
from gpt2dist.data.tokenizer import load_tokenizer
from gpt2dist.disk import locked, remove_partials, write_atomically, writing
from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.run_files import MANIFEST

_PLAN = "plan.json"


def dataset_dir(folder: str | Path, data: DataConfig) -> Path:
    """Where the dataset of these settings lives by default; `data.source` itself if it is one."""
    if is_dataset_folder(data.source):
        return Path(data.source)
    slug = re.sub(r"[^a-z0-9]+", "-", data.source.lower()).strip("-")[-40:].strip("-")
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(data)).encode()).hexdigest()[:8]
    return Path(folder) / f"{slug}-{data.tokenizer}-{digest}"


def prepare(
    data: DataConfig,
    out: str | Path,
    *,
    progress: Callable[[UnitsDone], None] | None = None,
    local: bool = False,
) -> Dataset:
    """The dataset of these settings in the folder `out`: loaded, completed or made.

    `local` does it in this process without Ray. `progress` is called after each unit. Raises
    BadInput when the source or the folder is not what it should be, RunFailure when a file cannot
    be read or written.
    """
    out = Path(out)
    if is_dataset_folder(data.source) or (out / MANIFEST).is_file():
        dataset = load_dataset_folder(data.source if is_dataset_folder(data.source) else out)
        require(dataset, data)
        return dataset
    _refuse_foreign(out)
    units = plan_units(data)
    load_tokenizer(data.tokenizer)  # should it be missing, one error is better than one per task
    if not units:
        raise no_text(data.source)
    job = Preparation(str(out.resolve()), data.tokenizer, data.text_field, data.val_fraction)
    with writing(out):
        (out / UNFINISHED).mkdir(parents=True, exist_ok=True)
    with locked(out / UNFINISHED / "lock", doing=f"preparing {out}"):
        started = _begin(out, data, json.dumps([FORMAT, [dataclasses.asdict(u) for u in units]]))
        done = {i: found for i in range(len(units)) if (found := read_finished(job.out, i))}
        todo = [i for i in range(len(units)) if i not in done]
        run = run_here(job, units, todo) if local else run_on_ray(job, units, todo)
        sizes = [unit.source_bytes for unit in units]
        report = Report(sizes, done, progress or (lambda state: None))
        # Closed on the way out of any error: Ray has to stop before the interpreter does.
        with contextlib.closing(run):
            for result in run:
                if not files_present(job.out, result):
                    raise RunFailure(
                        f"{out}: the files of unit {result.index} are not on this machine; "
                        "a cluster needs a folder that all its machines share"
                    )
                done[result.index] = result
                report(done)
        return finish(data, str(out), started, [done[i] for i in range(len(units))])


def _refuse_foreign(out: Path) -> None:
    """BadInput where `out` is something that a preparation did not begin."""
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out} is a file; name a folder")
    if out.is_dir() and not (out / UNFINISHED).is_dir() and any(out.iterdir()):
        raise BadInput(f"{out} is not empty and not a dataset folder; name another folder")


def _begin(out: Path, data: DataConfig, cut: str) -> str:
    """Starts or takes up the preparation in `out`; returns when it was started.

    `cut` says how the source falls into units.

    Raises BadInput when the one begun there has other settings or other source files.
    """
    for folder in (out, out / UNFINISHED):
        remove_partials(folder)
    units_sha256 = hashlib.sha256(cut.encode()).hexdigest()
    path = out / UNFINISHED / _PLAN
    if not path.is_file():
        started, settings = now(), dataclasses.asdict(data)
        plan = {"started": started, "settings": settings, "units_sha256": units_sha256}
        write_atomically(path, json.dumps(plan))
        return started
    plan = json.loads(path.read_text())
    remedy = f"remove {out} to begin again, or name another folder"
    for key, wanted in dataclasses.asdict(data).items():
        begun = plan["settings"].get(key)
        if begun != wanted:
            raise BadInput(
                f"{out} was begun with data.{key}={begun}, now data.{key}={wanted}; {remedy}"
            )
    if plan["units_sha256"] != units_sha256:
        raise BadInput(
            f"{out} was begun from other files of data.source={data.source} (names or sizes "
            f"have changed); {remedy}"
        )
    return plan["started"]
