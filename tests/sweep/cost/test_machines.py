"""Whether the trials of a sweep fit on its machines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gpt2dist.errors import BadInput
from gpt2dist.plan.placement import Machine
from gpt2dist.sweep.cost.machines import Machines
from tests.sweep.sweeping import sweep_of

CPU = Machine(0, "", None, False, 2, False)
GPUS = replace(CPU, gpus=4, gpu_name="A", gpu_gib=80.0, gpu_has_bf16=True)


@pytest.mark.parametrize(
    ("tree", "machine", "line"),
    [
        ({"resources": {"gpus": 1}}, CPU, "a trial needs more than the 0 GPUs here and would wait"),
        (
            {"resources": {"gpus": 8}},
            GPUS,
            "a trial needs more than the 4 GPUs here and would wait",
        ),
        ({"resources": {"gpus": 2}, "at_once": 3}, GPUS, "use sweep.at_once=2"),
        ({"at_once": 3}, CPU, "need more than the 2 cores here; use sweep.at_once=2"),
        ({"resources": {"cpus": 4}}, CPU, "resources.cpus=2 at most"),
        ({}, GPUS, "resources.gpus is 0, but there are 4 GPUs here"),
    ],
)
def test_resources_that_can_never_be_met_are_refused_at_once(tree, machine, line, tmp_path):
    here = Machines(machine, machine.gpus, machine.gpus, machine.cpu_cores)
    with pytest.raises(BadInput, match=line):
        here.require_room(sweep_of(tmp_path, **tree))
