"""What `verify` finds, and that a run reads each shard once per machine."""

import hashlib
import json
import os
import random

import numpy as np
import pytest

from gpt2dist.data.shards import load_dataset_folder, write_manifest
from gpt2dist.data.verify import verify, verifying
from gpt2dist.errors import BadInput
from tests.flips import flipped


def test_verify_finds_one_changed_byte(folder):
    path = folder / "train-00002.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"train-00002.bin does not have the sha256"):
        verify(load_dataset_folder(folder))


def test_verify_finds_a_token_beyond_the_vocabulary(dataset_of):
    folder = dataset_of([np.array([1, 2, 300])], [])
    with pytest.raises(BadInput, match="token 300, beyond vocab=257"):
        verify(load_dataset_folder(folder))


def refusal(folder) -> str | None:
    """What is said when a dataset is loaded and verified."""
    try:
        verify(load_dataset_folder(folder))
    except BadInput as error:
        return str(error)
    return None


def test_no_random_flip_in_any_file_goes_unnoticed(folder):
    """A thousand, over all files alike: the file is named with what to do, or nothing changed."""
    whole = load_dataset_folder(folder)
    write_manifest(whole)
    draw, files, harmless = random.Random(2026), sorted(folder.iterdir()), 0
    assert len(files) == 5
    for _ in range(1000):
        file = draw.choice(files)
        with flipped(file, draw.randrange(8 * file.stat().st_size)):
            said = refusal(folder)
            if said is None:
                assert (load_dataset_folder(folder), file.name) == (whole, "manifest.json")
                harmless += 1
            else:
                assert said.startswith(f"{file} ")
                assert "prepare the dataset again" in said
    assert harmless < 10
    assert refusal(folder) is None


def test_a_run_learns_which_shard_was_replaced_and_which_checkpoints_to_doubt(folder):
    shard = folder / "val-00000.bin"
    shard.write_bytes(bytes(shard.stat().st_size))
    said = r"val-00000\.bin does not have the sha256.*; checkpoints after step 40 may have learned"
    with verifying(load_dataset_folder(folder), start_step=40) as verification:
        with pytest.raises(BadInput, match=said):
            verification.finish()
        with pytest.raises(BadInput, match=said):
            verification.check()


def test_a_shard_that_is_gone_is_named(folder):
    dataset = load_dataset_folder(folder)
    (folder / "train-00001.bin").unlink()
    with verifying(dataset, 0) as verification:  # noqa: SIM117 - which block raises is the point
        with pytest.raises(BadInput, match=r"train-00001\.bin cannot be read \(No such file"):
            verification.finish()


def read_bytes() -> int:
    """What this process has read from files so far."""
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])


def read_by(dataset) -> int:
    before = read_bytes()
    with verifying(dataset, 0) as verification:
        verification.finish()
    return read_bytes() - before


@pytest.fixture
def large(dataset_of, tmp_path, monkeypatch):
    """A dataset of two shards of 64 MiB of nothing, which take no room; a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = dataset_of([np.zeros(1), np.zeros(1)], [])
    size, sha256 = 1 << 26, hashlib.sha256(bytes(1 << 26)).hexdigest()
    manifest = json.loads((folder / "manifest.json").read_text())
    for shard in manifest["shards"]:
        os.truncate(folder / shard["file"], size)
        shard |= {"tokens": size // 2, "sha256": sha256}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder, size


def test_a_shard_is_read_once_per_machine_until_someone_writes_to_it(large):
    folder, size = large
    dataset = load_dataset_folder(folder)
    assert read_by(dataset) >= 2 * size
    assert read_by(dataset) < 1 << 20
    shard = folder / "train-00001.bin"
    times = shard.stat()
    with shard.open("r+b") as file:
        file.write(b"\1")
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))  # as `rsync --times` does
    with pytest.raises(BadInput, match=r"train-00001\.bin does not have the sha256"):
        read_by(dataset)
