"""Runs the units of a preparation: in this process, or as tasks of Ray Data."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Generator, Sequence

from gpt2dist.data.prepare.files import first_line
from gpt2dist.data.prepare.unit_shards import Finished, Job, finished_from, tokenize_unit
from gpt2dist.data.prepare.units import Unit
from gpt2dist.data.tiktoken_cache import cache_environment
from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.ray_session import quiet_context, ray_session


def run_here(
    job: Job, units: Sequence[Unit], todo: Sequence[int]
) -> Generator[Finished, None, None]:
    """Tokenises the units with these indices one after the other, without Ray."""
    for index in todo:
        yield tokenize_unit(job, index, units[index])


def run_on_ray(
    job: Job, units: Sequence[Unit], todo: Sequence[int], workers: int | None
) -> Generator[Finished, None, None]:
    """Tokenises the units with these indices, at most `workers` at once, as each one finishes.

    Raises what a task raised as BadInput or RunFailure; any other end of a task is a RunFailure.
    """
    if not todo:
        return
    environment = cache_environment() if job.tokenizer == "gpt2" else {}
    with ray_session():
        import ray.data
        import ray.exceptions

        context = quiet_context()
        context.execution_options.preserve_order = False
        items = [{"unit": json.dumps([i, dataclasses.asdict(units[i])])} for i in todo]
        with ray.data.DataContext.current(context):
            results = ray.data.from_items(items, override_num_blocks=len(items)).map(
                functools.partial(_task, job, environment),
                compute=ray.data.TaskPoolStrategy(size=workers),
            )
        rows = iter(results.iter_batches(batch_size=None, batch_format="numpy"))
        try:
            for block in rows:
                for text in block["result"]:
                    yield _result(text)
        except ray.exceptions.RayError as error:
            raise RunFailure(
                f"{job.out}: a tokenising task ended badly ({first_line(error)}); run the same "
                "command again, it goes on where it stopped"
            ) from error
        finally:
            rows.close()  # type: ignore[attr-defined]


def _task(job: Job, environment: dict[str, str], row: dict[str, str]) -> dict[str, str]:
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    index, tree = json.loads(row["unit"])
    unit = Unit(**(tree | {"places": tuple(tree["places"])}))
    # As values, because Ray wraps what a task raises in errors of its own.
    try:
        done = tokenize_unit(job, index, unit)
    except BadInput as error:
        return {"result": json.dumps({"bad_input": str(error)})}
    except RunFailure as error:
        return {"result": json.dumps({"failure": str(error)})}
    return {"result": json.dumps(dataclasses.asdict(done))}


def _result(text: str) -> Finished:
    tree = json.loads(text)
    if "bad_input" in tree:
        raise BadInput(tree["bad_input"])
    if "failure" in tree:
        raise RunFailure(tree["failure"])
    return finished_from(tree)
