"""Weights to and from transformers, both ways."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2dist.config.schema import ModelConfig
from gpt2dist.errors import BadInput
from gpt2dist.model.gpt2 import GPT2
from gpt2dist.model.hf import export_hf, load_hf

CONFIG = ModelConfig(layers=2, heads=4, width=32, context=16, vocab=97)
TOKENS_BT = torch.arange(32).reshape(2, 16)


@pytest.fixture
def exported(tmp_path):
    model = GPT2(CONFIG).eval()
    export_hf(model.state_dict(), CONFIG, tmp_path / "export")
    return model, tmp_path / "export"


def test_transformers_reads_our_export(exported):
    model, folder = exported
    theirs, report = GPT2LMHeadModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    assert theirs.config.activation_function == "gelu_new"
    torch.testing.assert_close(
        theirs.eval()(TOKENS_BT).logits, model(TOKENS_BT), atol=1e-6, rtol=1e-5
    )


def test_our_export_loads_back_bit_for_bit(exported):
    model, folder = exported
    config, state = load_hf(folder)
    assert config == CONFIG
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_we_read_what_transformers_writes(tmp_path, form):
    theirs = GPT2LMHeadModel(
        GPT2Config(
            n_layer=2,
            n_head=4,
            n_embd=32,
            n_positions=16,
            vocab_size=97,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()
    theirs.save_pretrained(tmp_path)
    if form == "bin":  # the older layout: pickled, head stored twice, causal masks as buffers
        (tmp_path / "model.safetensors").unlink()
        masks = {"transformer.h.0.attn.bias": torch.ones(1, 1, 16, 16)}
        torch.save({**theirs.state_dict(), **masks}, tmp_path / "pytorch_model.bin")
    config, state = load_hf(str(tmp_path))
    assert (config.layers, config.heads, config.width, config.context, config.vocab) == (
        2,
        4,
        32,
        16,
        97,
    )
    ours = GPT2(config).eval()
    ours.load_state_dict(state)
    torch.testing.assert_close(ours(TOKENS_BT), theirs(TOKENS_BT).logits, atol=1e-6, rtol=1e-5)


def test_the_released_files_without_prefix_load(exported):
    model, folder = exported
    tensors = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(bare, folder / "model.safetensors")
    assert torch.equal(load_hf(folder)[1]["ln_f.weight"], model.ln_f.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"activation_function": "relu"}, "activation_function='relu'"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
        ({"n_inner": 64}, "n_inner=64"),
        ({"n_embd": 64}, "config.json asks for"),
        ({"n_layer": 3}, "no tensor for h.2"),
        ({"n_layer": 1}, "is no tensor of a plain GPT-2"),
        ({"n_head": "many"}, "is no GPT-2 config"),
    ],
)
def test_other_architectures_and_shapes_are_refused(exported, change, message):
    _, folder = exported
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(BadInput, match=message):
        load_hf(folder)


def test_unreadable_folders_are_named_in_one_line(exported, tmp_path):
    _, folder = exported
    (folder / "model.safetensors").write_bytes(b"not safetensors")
    (tmp_path / "empty").mkdir()
    for path in (folder, tmp_path / "empty", "no such place!"):
        with pytest.raises(BadInput) as caught:
            load_hf(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_export_replaces_an_export_and_nothing_else(exported, tmp_path):
    model, folder = exported
    export_hf(model.state_dict(), CONFIG, folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match="not an earlier export"):
        export_hf(model.state_dict(), CONFIG, folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["export"]
