"""GPT-2 weights from and to Hugging Face's layout: config.json beside model.safetensors.

Needs transformers for neither direction. Hugging Face keeps the four matrices of a block as
Conv1D, the transpose of a Linear, and stores the tied head once.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gpt2dist.config.schema import ModelConfig
from gpt2dist.disk import folder_atomically
from gpt2dist.errors import BadInput
from gpt2dist.model.gpt2 import GPT2, NORM_EPS

CONFIG_JSON = "config.json"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
TRANSPOSED = re.compile(r"\.(c_attn|c_proj|c_fc)\.weight$")
BUFFERS = re.compile(r"\.attn\.(masked_)?bias$")
PREFIXES = (("token_embed.", "wte."), ("position_embed.", "wpe."), ("blocks.", "h."))
FIXED_BY_GPT2 = {
    "activation_function": "gelu_new",
    "layer_norm_epsilon": NORM_EPS,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
"""What the architecture leaves no choice in, with the value an absent key has in transformers."""


def load_hf(path_or_name: str | Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Config and `GPT2.state_dict()` of a local folder or a hub name (`openai-community/gpt2`).

    Raises BadInput for anything but a plain GPT-2 with the shapes that its config.json states.
    """
    config_file, weight_file = _locate(str(path_or_name))
    config = _model_config(config_file)
    state = from_hf_names(_read_weights(weight_file))
    with torch.device("meta"):
        expected = {name: p.shape for name, p in GPT2(config).state_dict().items()}
    for name, shape in expected.items():
        if name not in state:
            raise BadInput(f"{weight_file}: no tensor for {_hf_name(name)}")
        if state[name].shape != shape:
            raise BadInput(
                f"{weight_file}: {_hf_name(name)} is {tuple(state[name].shape)} in Linear layout, "
                f"config.json asks for {tuple(shape)}"
            )
    if extra := sorted(state.keys() - expected.keys()):
        raise BadInput(f"{weight_file}: {extra[0]} is no tensor of a plain GPT-2 language model")
    return config, state


def export_hf(model_state: dict[str, Tensor], config: ModelConfig, folder: str | Path) -> None:
    """Write a folder that GPT2LMHeadModel.from_pretrained reads; it appears complete or not at all.

    An existing folder is replaced only if it holds nothing but an earlier export.
    """
    folder = Path(folder)
    if folder.exists() and (
        not folder.is_dir() or {p.name for p in folder.iterdir()} - {CONFIG_JSON, WEIGHT_FILES[0]}
    ):
        raise BadInput(f"{folder} exists and is not an earlier export; name a new folder")
    tensors = {f"transformer.{k}": v for k, v in _to_hf(model_state).items()}
    with folder_atomically(folder) as staging:
        save_file(tensors, staging / WEIGHT_FILES[0], metadata={"format": "pt"})
        (staging / CONFIG_JSON).write_text(json.dumps(_hf_config(config), indent=2) + "\n")


def _locate(path_or_name: str) -> tuple[Path, Path]:
    """The config and weight files, downloaded into Hugging Face's cache if they are not local."""
    folder = Path(path_or_name).expanduser()
    if folder.is_dir():
        for name in WEIGHT_FILES:
            if (folder / CONFIG_JSON).is_file() and (folder / name).is_file():
                return folder / CONFIG_JSON, folder / name
        raise BadInput(f"{folder} lacks config.json or {' / '.join(WEIGHT_FILES)}")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path_or_name):
        raise BadInput(f"{path_or_name} is neither a folder nor a hub name like OWNER/NAME")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError:
        raise BadInput(
            f"{path_or_name} is no folder; hub names need: pip install huggingface_hub"
        ) from None
    try:
        config_file = hf_hub_download(path_or_name, CONFIG_JSON)
        try:
            weight_file = hf_hub_download(path_or_name, WEIGHT_FILES[0])
        except EntryNotFoundError:
            weight_file = hf_hub_download(path_or_name, WEIGHT_FILES[1])
    except Exception as error:  # offline, unknown, gated: the hub has many classes for one fact
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadInput(f"{path_or_name} is no folder and the hub has it not: {reason}") from error
    return Path(config_file), Path(weight_file)


def _model_config(config_file: Path) -> ModelConfig:
    try:
        raw = json.loads(config_file.read_text())
        if raw.get("model_type") != "gpt2":
            raise BadInput(f"{config_file}: model_type is {raw.get('model_type')!r}, not 'gpt2'")
        config = ModelConfig(
            layers=int(raw["n_layer"]),
            heads=int(raw["n_head"]),
            width=int(raw["n_embd"]),
            context=int(raw.get("n_positions", 1024)),
            vocab=int(raw["vocab_size"]),
            dropout=float(raw.get("resid_pdrop", 0.1)),
        )
    except KeyError as missing:
        raise BadInput(f"{config_file} lacks {missing}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise BadInput(f"{config_file} is no GPT-2 config: {error}") from None
    for key, value in FIXED_BY_GPT2.items():
        if raw.get(key, value) != value:
            raise BadInput(f"{config_file}: {key}={raw[key]!r}; GPT-2 has {value!r}")
    if raw.get("n_inner") not in (None, 4 * config.width):
        raise BadInput(f"{config_file}: n_inner={raw['n_inner']}; GPT-2 has {4 * config.width}")
    return config


def _hf_config(config: ModelConfig) -> dict[str, Any]:
    end_of_text = config.vocab - 1
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_embd": config.width,
        "n_positions": config.context,
        "n_inner": None,
        "vocab_size": config.vocab,
        "attn_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "initializer_range": 0.02,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        **FIXED_BY_GPT2,
    }


def _read_weights(weight_file: Path) -> dict[str, Tensor]:
    try:
        if weight_file.suffix == ".safetensors":
            return load_file(weight_file)
        return torch.load(weight_file, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise BadInput(f"{weight_file} cannot be read: {error}".splitlines()[0]) from error


def from_hf_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names and Linear layout; drops the stored causal masks and the head's second copy."""
    state = {}
    for full_name, tensor in tensors.items():
        name = full_name.removeprefix("transformer.")
        if BUFFERS.search(name):
            continue
        if name == "lm_head.weight":
            tied = tensors.get("transformer.wte.weight", tensors.get("wte.weight"))
            if tied is not None and not torch.equal(tied, tensor):
                raise BadInput("lm_head.weight differs from wte.weight; GPT-2's head is tied")
            continue
        for ours, theirs in PREFIXES:
            if name.startswith(theirs):
                name = ours + name.removeprefix(theirs)
        state[name] = tensor.t().contiguous() if TRANSPOSED.search(name) else tensor
    return state


def _to_hf(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        _hf_name(name): (tensor.t() if TRANSPOSED.search(name) else tensor)
        .detach()
        .to("cpu", copy=True)
        .contiguous()
        for name, tensor in state.items()
    }


def _hf_name(name: str) -> str:
    for ours, theirs in PREFIXES:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name
