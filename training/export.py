"""Writes a checkpoint as the hub does: base/ and adapter/, ready for `yomu models build`.

    python -m training.export WORK OUT        averaged weights of WORK/latest.pt to OUT
    python -m training.export WORK OUT --retriever models/embedded   … finding as the shipped model
    yomu models build OUT models/embedded …   see README.md

A run that teaches to find teaches one set of weights: its adapter is a LoRA of zeros. A run that
teaches to read changes the matrices of the decoder alone; what finds pages is then the adapter:
the difference of both, by singular value decomposition, as ColQwen2's is a LoRA on Qwen2-VL.
"""

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from training import tokenizer as templates
from training.batches import patch_positions
from training.card import write_card
from training.config import CELL_PX, from_dict, hub_config
from training.losses import Lessons
from training.model import Yomu, is_adapted, normalise
from training.samples import inked, patchify
from training.spelling import SpelledEmbedding
from training.start import load_decoder, turned_as

LINEARS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
MAX_PIXELS = 1500 * 28 * 28
SAME = 2e-3  # of a parameter's largest value: what fp16 leaves of it
RANK = 128  # of an adapter that holds another retriever


def load(work: Path) -> tuple[Yomu, dict]:
    """Return the averaged model of a work folder and the checkpoint's other entries."""
    saved = torch.load(work / "latest.pt", map_location="cpu")
    classes = saved["lessons"]["characters.bias"].numel()
    spelled = saved["lessons"].get("yomu.model.embed_tokens.spelled")
    lessons = Lessons(Yomu(from_dict(saved["config"])), classes, spelled)
    prefix = "module."
    averaged = {
        k.removeprefix(prefix): v for k, v in saved["average"].items() if k.startswith(prefix)
    }
    lessons.load_state_dict(averaged)
    embedding = lessons.yomu.model.embed_tokens
    if isinstance(embedding, SpelledEmbedding):
        lessons.yomu.model.embed_tokens = embedding.fold()
    return lessons.yomu.eval(), saved


def write(
    work: Path, out: Path, retriever: Path | None = None, between: Path | None = None
) -> None:
    """Write OUT/base and OUT/adapter, replacing what was there only when all is written.

    retriever  model folder whose decoder the adapter makes of this one; None: the adapter is zero
    between    model folder that the run began with: weights half-way between both are written
    """
    model, saved = load(work)
    model = model if between is None else half_way(model, between)
    finds = model if retriever is None else with_decoder_of(model, retriever)
    partial = out.with_name(out.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    write_base(model, Tokenizer.from_file(str(work / "tokenizer.json")), partial / "base")
    write_adapter(model, finds, partial / "adapter")
    write_card(work, saved, sum(p.numel() for p in model.parameters()), partial / "MODEL_CARD.md")
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


def write_base(model: Yomu, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a Qwen2-VL checkpoint folder that also has the projection, as colqwen2-base."""
    folder.mkdir(parents=True)
    tensors = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    ids = templates.special_ids(tokenizer)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in {
        "config.json": hub_config(model.config, ids),
        "generation_config.json": _generation(ids),
        "preprocessor_config.json": _preprocessor(),
        "tokenizer_config.json": _tokenizer_config(),
    }.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def half_way(model: Yomu, folder: Path) -> Yomu:
    """Return the mean of a model and of one with the decoder of a built model folder.

    What a run learns and what it forgets lie on the way between both (WiSE-FT, arXiv:2109.01903).
    """
    mean = deepcopy(model)
    load_decoder(mean, folder)
    with torch.no_grad():
        for ours, theirs in zip(mean.parameters(), model.parameters(), strict=True):
            ours.lerp_(theirs, 0.5)
    return mean


def with_decoder_of(model: Yomu, folder: Path) -> Yomu:
    """Return the model with the decoder and projection of a built model folder.

    Raises ValueError if anything but matrices of layers differs: no adapter could hold that.
    """
    text = model.config.text
    if turned_as(text, folder) != text:
        raise ValueError(f"{folder}: its positions turn otherwise than the run's")
    finds = deepcopy(model)
    load_decoder(finds, folder)
    other = dict(finds.named_parameters())
    for name, value in model.named_parameters():
        if not is_adapted(name) and (value - other[name]).abs().max() > SAME * value.abs().max():
            raise ValueError(f"{folder}: {name} differs from the run's")
    return finds


def write_adapter(model: Yomu, finds: Yomu, folder: Path) -> None:
    """Write the PEFT adapter that makes `finds` of the model: every matrix of its decoder."""
    folder.mkdir(parents=True)
    rank = 1 if finds is model else RANK
    tensors: dict[str, Tensor] = {}
    for number, (layer, other) in enumerate(
        zip(model.model.layers, finds.model.layers, strict=True)
    ):
        for name in LINEARS:
            part, linear = name.split(".")
            change = getattr(other, part)[linear].weight - getattr(layer, part)[linear].weight
            left, values, right = torch.linalg.svd(change, full_matrices=False)
            root = values[:rank].sqrt()
            key = f"base_model.model.model.layers.{number}.{name}"
            # as many rows and columns for all, zeros where a matrix has no more
            more = (0, rank - len(root))
            tensors[f"{key}.lora_A.weight"] = F.pad(root[:, None] * right[:rank], (0, 0, *more))
            tensors[f"{key}.lora_B.weight"] = F.pad(left[:, :rank] * root, more)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": "base",
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [name.split(".")[1] for name in LINEARS],
        "task_type": "FEATURE_EXTRACTION",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _generation(ids: dict[str, int]) -> dict:
    end = ids["<|endoftext|>"]
    return {
        "bos_token_id": end,
        "pad_token_id": end,
        "eos_token_id": [ids["<|im_end|>"], end],
        "do_sample": False,
        "repetition_penalty": 1.0,
    }


def _preprocessor() -> dict:
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "min_pixels": 4 * 28 * 28,
        "max_pixels": MAX_PIXELS,
        "merge_size": 2,
        "patch_size": 14,
        "temporal_patch_size": 2,
    }


def _tokenizer_config() -> dict:
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "padding_side": "left",
        "additional_special_tokens": list(templates.SPECIAL[1:]),
        "model_max_length": 4096,
        "chat_template": CHAT_TEMPLATE,
    }


CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@torch.no_grad()
def reference_vectors(model: Yomu, tokenizer: Tokenizer, image: NDArray[np.uint8]) -> NDArray:
    """Return the (n, 128) vectors of a page image of whole cells, blank cells left out."""
    positions = np.argwhere(inked(image))
    ids = tokenizer.encode(
        templates.PAGE_PREFIX + "<|image_pad|>" * len(positions) + templates.PAGE_SUFFIX
    ).ids
    start = len(tokenizer.encode(templates.PAGE_PREFIX).ids)
    after = start + max(image.shape[0], image.shape[1]) // CELL_PX
    rest = np.arange(len(ids) - start - len(positions)) + after
    places = np.concatenate(
        [
            np.tile(np.arange(start), (3, 1)),
            start + np.stack([0 * positions[:, 0], positions[:, 0], positions[:, 1]]),
            np.tile(rest, (3, 1)),
        ],
        axis=1,
    )
    features = model.visual(
        normalise(torch.from_numpy(patchify(image, positions)))[None],
        torch.from_numpy(patch_positions(positions))[None],
        None,
    )[0]
    image_token = tokenizer.token_to_id("<|image_pad|>")
    embeds = model.embed(torch.tensor([ids]), features, image_token)
    hidden = model.model(embeds, torch.from_numpy(places)[:, None])
    return model.project(hidden)[0].numpy()


def main(
    work: Annotated[Path, typer.Argument(help="work folder with latest.pt")],
    out: Annotated[Path, typer.Argument(help="folder to write base/ and adapter/ into")],
    retriever: Annotated[
        Path | None,
        typer.Option(help="model folder that finds pages better than the run's weights"),
    ] = None,
    between: Annotated[
        Path | None,
        typer.Option(help="model folder the run began with: write the mean of both"),
    ] = None,
) -> None:
    """Export the averaged weights of the last checkpoint."""
    write(work, out, retriever, between)
    print(f"{out}: base, adapter, MODEL_CARD.md")


if __name__ == "__main__":
    typer.run(main)
