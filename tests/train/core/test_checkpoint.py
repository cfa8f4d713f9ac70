"""Checkpoints move between stages and world sizes; damaged ones are named and skipped."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from contextlib import suppress

import pytest

from gpt2dist.config.load import resolve
from gpt2dist.disk import remove_partials
from gpt2dist.errors import BadInput, RunFailure
from gpt2dist.plan.machine.hardware import parse_on
from gpt2dist.plan.placement import Machine, machine_of, place
from gpt2dist.run_files import checkpoint_folders
from gpt2dist.train.core import checkpoint
from tests.flips import flipped
from tests.train.ranks import run_ranks

STAGES = [f"fp32-autocast-{stage}" for stage in range(4)]
SIXTEEN_BIT = [
    f"{kind}-{stage}"
    for stage in range(4)  # stage 3 last: it patches torch's linear layers for the whole process
    for kind in ("bf16-autocast", "bf16-engine", "fp16-engine")
    if stage or kind == "bf16-autocast"
]
BF16_OPTIMIZER = "bf16-engine-1"
"DeepSpeed gives this one an optimizer of its own, with partitions under other names."


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints at step 3 of every stage for one and two ranks, and the uninterrupted curves."""
    folder = tmp_path_factory.mktemp("saved")
    curves = {
        world: run_ranks(
            folder,
            "save_then_continue",
            world,
            cases=[*STAGES, BF16_OPTIMIZER],
            folder=str(folder / "runs"),
        )[0]
        for world in (1, 2)
    }
    return folder, curves


@pytest.mark.parametrize("world", [1, 2])
def test_resume_is_exact_at_the_same_layout_and_close_at_any_other(world, saved, tmp_path):
    folder, curves = saved
    folders = [str(folder / "runs" / f"{stage}-{w}") for stage in STAGES for w in (1, 2)]
    pairs = [*itertools.product(folders, STAGES)]
    pairs.append((str(folder / "runs" / f"{BF16_OPTIMIZER}-{world}"), BF16_OPTIMIZER))
    resumed = run_ranks(tmp_path, "resume", world, pairs=pairs)[0]
    own = resumed[f"{BF16_OPTIMIZER}-{world} -> {BF16_OPTIMIZER}"]
    assert own["losses"] == curves[world][BF16_OPTIMIZER]
    assert own["digest"] == curves[world][f"digest {BF16_OPTIMIZER}"]
    for saved_stage in STAGES:
        for saved_world in (1, 2):
            for stage in STAGES:
                key = f"{saved_stage}-{saved_world} -> {stage}"
                losses = resumed[key]["losses"]
                if (saved_stage, saved_world) == (stage, world):
                    assert losses == curves[world][stage], key
                    assert resumed[key]["digest"] == curves[world][f"digest {stage}"], key
                else:
                    assert losses == pytest.approx(curves[world][stage], abs=2e-5), key


def test_every_sixteen_bit_mode_resumes_exactly(tmp_path):
    folder = str(tmp_path / "runs")
    outcomes = run_ranks(tmp_path, "save_and_resume", 1, cases=SIXTEEN_BIT, folder=folder)
    for case, outcome in outcomes[0].items():
        assert outcome["resumed"] == outcome["whole"], case


def test_no_placement_has_a_pair_of_stage_and_precision_that_is_not_tested_here():
    machines = [machine_of(parse_on(name)) for name in ("2xA100-80GB", "2xV100")]
    machines.append(Machine(0, "", None, False, 4, True))
    placed = set()
    for machine, stage, precision, mode in itertools.product(
        machines, range(4), ("auto", "fp32", "bf16", "fp16"), ("autocast", "engine")
    ):
        words = (f"zero.stage={stage}", f"cluster.precision={precision}")
        with suppress(BadInput):
            config = resolve("gpt2-124m", [*words, f"cluster.mixed_precision={mode}"])
            layout = place(config, machine).layout
            half = layout.precision != "fp32"
            mode = layout.mixed_precision if half else "autocast"
            placed.add(f"{layout.precision}-{mode}-{layout.zero_stage}")
    assert placed == {*STAGES, *SIXTEEN_BIT}


def damage_truncate(folder):
    file = next(folder.glob("optimizer-*"))
    file.write_bytes(file.read_bytes()[:-100])
    return file.name


def damage_flip(folder):
    file = next(folder.glob("weights-*"))
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    return file.name


def damage_remove(folder):
    file = next(folder.glob("weights-*"))
    file.unlink()
    return file.name


def damage_state(folder):
    (folder / "state.json").write_text('{"format": 1, "sta')
    return "state.json"


def rewrite(file, **changes):
    """Another state, vouched for as a save would."""
    record = json.loads(file.read_text())
    del record["sha256"]
    record["state"].update(changes)
    text = json.dumps(record, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    file.write_text(json.dumps({**record, "sha256": digest}))


@pytest.fixture
def two_checkpoints(saved, tmp_path):
    """A run folder with steps 3 and 4, both whole."""
    import shutil

    folder, _ = saved
    older = tmp_path / "checkpoints" / "step-00000003"
    newer = tmp_path / "checkpoints" / "step-00000004"
    shutil.copytree(folder / "runs" / "fp32-autocast-1-2" / "checkpoints" / "step-00000003", older)
    shutil.copytree(older, newer)
    rewrite(newer / "state.json", step=4)
    return tmp_path


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, damage_remove, damage_state])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(damage, two_checkpoints):
    assert checkpoint.newest_valid(two_checkpoints, pytest.fail).state.step == 4
    name = damage(two_checkpoints / "checkpoints" / "step-00000004")
    notes = []
    found = checkpoint.newest_valid(two_checkpoints, notes.append)
    assert found.state.step == 3
    assert len(notes) == 1
    assert "step-00000004 is damaged and skipped" in notes[0]
    assert name in notes[0]


def test_no_whole_checkpoint_is_a_failure_not_a_silent_restart(two_checkpoints):
    for folder in checkpoint_folders(two_checkpoints):
        damage_flip(folder)
    with pytest.raises(RunFailure, match=r"no checkpoint in .* is whole"):
        checkpoint.newest_valid(two_checkpoints, lambda note: None)


def test_pruning_keeps_the_newest_and_the_best(two_checkpoints):
    import shutil

    base = two_checkpoints / "checkpoints"
    for step, val_loss in ((5, 2.0), (6, 3.0), (7, None), (8, None)):
        shutil.copytree(base / "step-00000004", base / f"step-{step:08d}")
        rewrite(base / f"step-{step:08d}" / "state.json", step=step, val_loss=val_loss)
    checkpoint.prune(two_checkpoints, keep_last=2, keep_best=True, at_step=8)
    kept = [folder.name for folder in checkpoint_folders(two_checkpoints)]
    assert kept == ["step-00000008", "step-00000007", "step-00000005"]
    assert checkpoint.best(two_checkpoints).state.step == 5


def test_a_damaged_later_checkpoint_never_pushes_out_the_whole_one(two_checkpoints):
    """Step 4 is damaged, the run went on from before it and has just saved step 3 again."""
    damage_flip(two_checkpoints / "checkpoints" / "step-00000004")
    checkpoint.prune(two_checkpoints, keep_last=1, keep_best=False, at_step=3)
    assert checkpoint.newest_valid(two_checkpoints, lambda note: None).state.step == 3


def test_leftovers_of_an_interrupted_save_never_count(two_checkpoints):
    base = two_checkpoints / "checkpoints"
    (base / "step-00000004").rename(base / ".partial-step-00000004")
    assert checkpoint.newest_valid(two_checkpoints, pytest.fail).state.step == 3
    remove_partials(base)
    assert [path.name for path in base.iterdir()] == ["step-00000003"]


def test_no_flipped_bit_of_the_record_trains_on_unnoticed(two_checkpoints):
    """Each bit in turn: the record is refused, or says what it said."""
    folder = checkpoint_folders(two_checkpoints)[0]
    file = folder / "state.json"
    original, refused = checkpoint.load(folder, full_check=False), 0
    bits = 8 * file.stat().st_size
    for bit in range(bits):
        with flipped(file, bit):
            try:
                found = checkpoint.load(folder, full_check=False)
                assert (found.state, found.files) == (original.state, original.files), bit
            except checkpoint.DamagedCheckpointError:
                refused += 1
    assert refused > bits / 2, "most bits carry something"


def test_no_random_flip_in_any_file_trains_on_unnoticed(two_checkpoints):
    """A thousand, over all files alike: each is found, its file named, the step before used."""
    draw = random.Random(2026)
    files = sorted(checkpoint_folders(two_checkpoints)[0].iterdir())
    assert {file.name.split("-")[0] for file in files} == {"weights", "optimizer", "state.json"}
    whole = checkpoint.newest_valid(two_checkpoints, pytest.fail)
    harmless = 0
    for _ in range(1000):
        file = draw.choice(files)
        with flipped(file, draw.randrange(8 * file.stat().st_size)):
            notes = []
            found = checkpoint.newest_valid(two_checkpoints, notes.append)
        if not notes:
            assert (found.state, found.files) == (whole.state, whole.files)
            assert file.name == "state.json", "its spaces only"
            harmless += 1
            continue
        (note,) = notes
        assert found.state.step == 3
        assert note.startswith(f"checkpoint step-00000004 is damaged and skipped: {file.name} ")
    assert harmless < 10


def test_a_record_of_an_early_version_is_read(two_checkpoints):
    folder = checkpoint_folders(two_checkpoints)[0]
    record = json.loads((folder / "state.json").read_text())
    del record["sha256"]
    (folder / "state.json").write_text(json.dumps(record))
    assert checkpoint.load(folder).files == record["files"]


def test_stray_folders_are_no_checkpoints(two_checkpoints):
    whole = checkpoint_folders(two_checkpoints)
    for stray in ("step-abc", f"{whole[0].name}.bak", "step-9"):
        (whole[0].parent / stray).mkdir()
    assert checkpoint_folders(two_checkpoints) == whole
