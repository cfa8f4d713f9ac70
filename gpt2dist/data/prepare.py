"""Text to a dataset folder: units tokenised in parallel by Ray Data, restartable at any moment."""

from __future__ import annotations

import dataclasses
import fcntl
import functools
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2dist.config.schema import DataConfig
from gpt2dist.data.corpus import no_text, plan_units
from gpt2dist.data.finish import finish, now
from gpt2dist.data.ray_session import quiet_context, ray_session
from gpt2dist.data.shards import (
    FORMAT,
    MANIFEST,
    SPLITS,
    UNFINISHED,
    Dataset,
    is_dataset_folder,
    load_dataset_folder,
    require,
    write_file,
)
from gpt2dist.data.tiktoken_cache import cache_environment
from gpt2dist.data.unit_shards import Finished, Job, files_present, read_finished, tokenize_unit
from gpt2dist.data.units import Unit
from gpt2dist.errors import BadInput, RunFailure

_PLAN = "plan.json"


@dataclass(frozen=True)
class Progress:
    """How far a preparation is; rates and the time left count this call's work only."""

    units: int
    units_done: int
    documents: int
    tokens: int
    text_bytes: int
    megabytes_per_s: float
    seconds_left: float | None


def dataset_dir(folder: str | Path, data: DataConfig) -> Path:
    """Where the dataset of these settings lives by default; `data.source` itself if it is one."""
    if is_dataset_folder(data.source):
        return Path(data.source)
    slug = re.sub(r"[^a-z0-9]+", "-", data.source.lower()).strip("-")[-40:].strip("-")
    digest = hashlib.sha256(json.dumps(_settings(data)).encode()).hexdigest()[:8]
    return Path(folder) / f"{slug}-{data.tokenizer}-{digest}"


def prepare(
    data: DataConfig,
    out: str | Path,
    *,
    workers: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    local: bool = False,
) -> Dataset:
    """The dataset of these settings in the folder `out`: loaded, completed or made.

    `workers` limits how many units are tokenised at once; `local` does it in this process
    without Ray. `progress` is called after each unit. Raises BadInput when the source or the
    folder is not what it should be, RunFailure when a file cannot be read or written.
    """
    out = Path(out)
    if (out / MANIFEST).is_file() or is_dataset_folder(data.source):
        dataset = load_dataset_folder(out)
        require(dataset, data)
        return dataset
    _refuse_foreign(out)
    if data.tokenizer == "gpt2":
        cache_environment()  # fails here, in one line, rather than in every task
    units = plan_units(data)
    if not units:
        raise no_text(data.source)
    job = Job(str(out), data.tokenizer, data.text_field, data.val_fraction)
    with _lock(out):
        started = _begin(data, out, units)
        done = {i: found for i in range(len(units)) if (found := read_finished(str(out), i))}
        todo = [i for i in range(len(units)) if i not in done]
        run = _run_here(job, units, todo) if local else _run_on_ray(job, units, todo, workers)
        report = _Report(units, done, progress)
        for result in run:
            if not files_present(str(out), result):
                raise RunFailure(
                    f"{out}: a file of unit {result.index} is not here; on several machines the "
                    "folder must be one that all of them share"
                )
            done[result.index] = result
            report(done)
        return finish(data, str(out), started, [done[i] for i in range(len(units))])


def _run_here(job: Job, units: Sequence[Unit], todo: Sequence[int]) -> Iterator[Finished]:
    for index in todo:
        yield tokenize_unit(job, index, units[index])


def _run_on_ray(
    job: Job, units: Sequence[Unit], todo: Sequence[int], workers: int | None
) -> Iterator[Finished]:
    """Results in the order in which units finish."""
    if not todo:
        return
    with ray_session():
        import ray.data

        context = quiet_context()
        context.execution_options.preserve_order = False
        items = [{"unit": json.dumps([i, dataclasses.asdict(units[i])])} for i in todo]
        with ray.data.DataContext.current(context):
            results = (
                ray.data.from_items(items, override_num_blocks=len(items))
                .map(
                    functools.partial(_unit_task, job, cache_environment()),
                    compute=ray.data.TaskPoolStrategy(size=workers),
                )
                .iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
            )
        rows = iter(results)
        try:
            for table in rows:
                for text in table.column("result").to_pylist():
                    yield _result(json.loads(text))
        finally:
            rows.close()  # type: ignore[attr-defined]
