"""Writes a checkpoint as the hub does: base/ and adapter/, ready for `yomu models build`.

    python -m training.export WORK OUT        averaged weights of WORK/latest.pt to OUT
    yomu models build OUT models/embedded …   see README.md

Retriever and generator are one set of weights, trained together, so the adapter is a LoRA of zeros:
the folder has the form of ColQwen2's, and a later run may fill it in.
"""

import json
import shutil
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from training import tokenizer as templates
from training.batches import patch_positions
from training.card import write_card
from training.config import CELL_PX, from_dict, hub_config
from training.losses import Lessons
from training.model import Yomu, normalise
from training.samples import inked, patchify
from training.spelling import SpelledEmbedding

LINEARS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
MAX_PIXELS = 1500 * 28 * 28
RANK = 1


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


def write(work: Path, out: Path) -> None:
    """Write OUT/base and OUT/adapter, replacing what was there only when all is written."""
    model, saved = load(work)
    partial = out.with_name(out.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    write_base(model, Tokenizer.from_file(str(work / "tokenizer.json")), partial / "base")
    write_adapter(model, partial / "adapter")
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


def write_adapter(model: Yomu, folder: Path) -> None:
    """Write a PEFT adapter that changes nothing, on every linear map of the decoder."""
    folder.mkdir(parents=True)
    tensors: dict[str, Tensor] = {}
    for number, layer in enumerate(model.model.layers):
        for name in LINEARS:
            part, linear = name.split(".")
            weight = getattr(layer, part)[linear].weight
            key = f"base_model.model.model.layers.{number}.{name}"
            tensors[f"{key}.lora_A.weight"] = torch.zeros(RANK, weight.shape[1])
            tensors[f"{key}.lora_B.weight"] = torch.zeros(weight.shape[0], RANK)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": "base",
        "r": RANK,
        "lora_alpha": RANK,
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
) -> None:
    """Export the averaged weights of the last checkpoint."""
    write(work, out)
    print(f"{out}: base, adapter, MODEL_CARD.md")


if __name__ == "__main__":
    typer.run(main)
