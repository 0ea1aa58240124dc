"""Record what torch + transformers answer on the tiny checkpoints, as small .npz fixtures.

    python -m tests.parity.make_fixtures     (needs torch, torchvision, transformers; not Yomu)

Every fixture holds `meta`: versions and seed. The weights come from `tiny.py`, the inputs from
`cases.py`, so only the answers are stored. Prints how far float32 is from float64, which is the
floor under every tolerance, and refuses weights whose greedy text loops.
"""

import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from transformers import ColQwen2ForRetrieval, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from tests.parity import cases, tiny
from tests.parity.tiny import TINY, UNTIED, WIDE, Sizes

warnings.simplefilter("ignore")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_grad_enabled(False)

MAX_TOTAL_BYTES = 2_000_000
SIZE = {"shortest_edge": 3136, "longest_edge": 602112}
Arrays = dict[str, NDArray]


def save(name: str, arrays: Arrays, sizes: Sizes | None = None) -> None:
    """Write a fixture with its versions and seed."""
    meta = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
        "seed": None if sizes is None else sizes.seed,
    }
    cases.FIXTURES.mkdir(exist_ok=True)
    kept = {
        key: np.asarray(values, np.float32 if np.asarray(values).dtype.kind == "f" else None)
        for key, values in arrays.items()
    }
    np.savez_compressed(cases.FIXTURES / f"{name}.npz", meta=json.dumps(meta), **kept)


def qwen2vl(sizes: Sizes, dtype: str = "float32") -> Qwen2VLForConditionalGeneration:
    """The reference model, loaded from a folder as from the hub."""
    with tempfile.TemporaryDirectory() as folder:
        tiny.write_qwen2vl(Path(folder), sizes, dtype=dtype)
        return Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


def processed(image_sizes: tuple, pictures: list, size: dict) -> tuple:
    """(pixel_values, grids) by the reference's Pillow processor."""
    if not image_sizes:
        return None, None
    processor = Qwen2VLImageProcessorPil(size=size)
    found = processor(images=pictures, return_tensors="pt")
    return found["pixel_values"], found["image_grid_thw"]


def token_ids(written: str, grids: torch.Tensor | None) -> torch.Tensor:
    """(1, L) ids of a written prompt, each image pad repeated for its grid."""
    ids = tiny.tokenizer().encode(written).ids
    counts = [] if grids is None else (grids.prod(-1) // 4).tolist()
    found: list[int] = []
    for token_id in ids:
        found += [token_id] * (counts.pop(0) if token_id == cases.IMAGE else 1)
    return torch.tensor([found])


def types_of(ids: torch.Tensor) -> torch.Tensor:
    return (ids == cases.IMAGE).int() + 2 * (ids == cases.VIDEO).int()


def preprocessing() -> None:
    arrays: Arrays = {}
    for n, (size, longest) in enumerate(cases.PREPROCESS):
        limits = {"shortest_edge": 3136, "longest_edge": longest}
        values, grids = processed(size, [cases.picture(*size)], limits)
        arrays[f"values_{n}"] = cases.sample(values.numpy())
        arrays[f"grid_{n}"] = grids[0].numpy()
    save("preprocessing", arrays)


def video_preprocessing() -> None:
    """Pixels and sampled frames of videos; the reference needs torchvision for them."""
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
    from transformers.video_utils import VideoMetadata

    processor = Qwen2VLVideoProcessor(cap_pixels_per_frame=True)
    arrays: Arrays = {}
    for n, (n_frames, size) in enumerate(cases.VIDEOS):
        frames = np.stack([np.asarray(each) for each in cases.video_frames(n_frames, size)])
        video = torch.tensor(frames).permute(0, 3, 1, 2)
        found = processor(videos=[video], return_tensors="pt")
        arrays[f"values_{n}"] = cases.sample(found["pixel_values_videos"].numpy())
        arrays[f"grid_{n}"] = found["video_grid_thw"][0].numpy()
    for n, (n_total, rate, fps, most) in enumerate(cases.SAMPLING):
        video = VideoMetadata(total_num_frames=n_total, fps=rate)
        found = processor.sample_frames(video, fps=fps, min_frames=4, max_frames=most)
        arrays[f"frames_{n}"] = found.numpy()
    save("video_preprocessing", arrays)


def positions(model: Qwen2VLForConditionalGeneration) -> None:
    arrays: Arrays = {}
    for name, (ids, grids) in cases.POSITIONS.items():
        row = torch.tensor([[cases.PAD] * 3 + ids])  # left-padded: padding must not count
        mask = torch.ones_like(row)
        mask[:, :3] = 0
        types = types_of(row)
        order = [kind for kind in dict.fromkeys(k for k in types[0].tolist() if k)]
        of = {kind: [] for kind in (1, 2)}
        for grid, kind in zip(grids, order if len(order) == len(grids) else order * 2, strict=True):
            of[kind].append(grid)
        found, delta = model.model.get_rope_index(
            row,
            types,
            image_grid_thw=torch.tensor(of[1]) if of[1] else None,
            video_grid_thw=torch.tensor(of[2]) if of[2] else None,
            attention_mask=mask,
        )
        arrays[f"ids {name}"] = found[:, 0, 3:].numpy()
        arrays[f"next {name}"] = np.array(int(delta) + len(ids))
    save("positions", arrays)


def vision(model: Qwen2VLForConditionalGeneration) -> None:
    arrays: Arrays = {}
    visual = model.model.visual
    for name, grid in cases.VISION_GRIDS.items():
        values = torch.tensor(cases.patches(int(np.prod(grid))))
        arrays[name] = visual(values, grid_thw=torch.tensor([grid])).pooler_output.numpy()
    grid = cases.VISION_GRIDS["wide"]
    arrays["kept"] = kept_features(visual, cases.patches(32), grid, cases.KEPT).numpy()
    save("vision", arrays, TINY)


def kept_features(
    visual: torch.nn.Module, values: NDArray, grid: tuple, kept: NDArray
) -> torch.Tensor:
    """The vision tower on some merge blocks at their places in the whole grid."""
    from transformers.vision_utils import get_vision_position_ids

    of_patch = torch.tensor(np.repeat(kept, 4))
    grids = torch.tensor([grid])
    places = get_vision_position_ids(grids, 2)[of_patch]
    ends = torch.tensor([0, int(of_patch.sum())], dtype=torch.int32)
    some = torch.tensor(values)[of_patch]
    return visual(some, grid_thw=grids, position_ids=places, cu_seqlens=ends).pooler_output


def prefill(model: Qwen2VLForConditionalGeneration, prompt: cases.Prompt) -> dict:
    """The inputs of a prompt as the reference's forward takes them."""
    values, grids = processed(prompt.images, prompt.pictures(), SIZE)
    ids = token_ids(prompt.written, grids)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": types_of(ids),
    }
    return inputs | ({} if grids is None else {"pixel_values": values, "image_grid_thw": grids})


def decoder(name: str, sizes: Sizes, prompts: list[str]) -> None:
    """Hidden states, logits and cache of whole prompts; greedy text with every step's logits."""
    model = qwen2vl(sizes)
    arrays: Arrays = {}
    for key in prompts:
        inputs = prefill(model, cases.PROMPTS[key])
        out = model(**inputs, output_hidden_states=True, use_cache=True)
        arrays[f"ids {key}"] = inputs["input_ids"][0].numpy()
        arrays[f"hidden {key}"] = out.hidden_states[-1][0].numpy()
        arrays[f"last logits {key}"] = out.logits[0, -1].numpy()
        arrays[f"keys {key}"] = out.past_key_values.layers[-1].keys[0].numpy()
        arrays[f"values {key}"] = out.past_key_values.layers[-1].values[0].numpy()
        tokens, logits = greedy(model, inputs)
        arrays[f"tokens {key}"], arrays[f"logits {key}"] = tokens, logits
        exact = qwen2vl(sizes).double()
        inputs = {k: v.double() if k == "pixel_values" and v is not None else v
                  for k, v in inputs.items()}  # fmt: skip
        far = (exact(**inputs).logits[0, -1] - out.logits[0, -1]).abs().max()
        print(f"{name}, {key}: {inputs['input_ids'].shape[1]} tokens, float32 off by {far:.1e}")
    save(name, arrays, sizes)


def greedy(model: Qwen2VLForConditionalGeneration, inputs: dict) -> tuple[NDArray, NDArray]:
    """(n,) tokens and (n, vocab) logits of greedy decoding; refuses text that loops or ties."""
    n = cases.N_GREEDY
    out = model.generate(
        **inputs,
        max_new_tokens=n,
        min_new_tokens=n,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    tokens = out.sequences[0, -n:].tolist()
    logits = torch.cat(out.logits)
    two = logits.topk(2).values
    gap = float((two[:, 0] - two[:, 1]).min())
    grams = [tuple(tokens[at : at + 6]) for at in range(n - 5)]
    assert len(set(grams)) == len(grams), f"the text loops: draw other weights ({tokens})"
    assert not {cases.END, cases.PAD} & set(tokens), "the text ends early: draw other weights"
    assert gap > 1e-3, f"two tokens nearly tie ({gap:.1e}): draw other weights"
    print(f"  {len(set(tokens))} different tokens of {n}, smallest lead {gap:.4f}")
    return np.array(tokens), logits.numpy()


def video(model: Qwen2VLForConditionalGeneration) -> None:
    """Hidden states of a prompt with a video in it."""
    ids, grids = cases.POSITIONS["video"]
    row = torch.tensor([ids])
    out = model(
        input_ids=row,
        attention_mask=torch.ones_like(row),
        pixel_values_videos=torch.tensor(cases.patches(48)),
        video_grid_thw=torch.tensor(grids),
        mm_token_type_ids=types_of(row),
        output_hidden_states=True,
    )
    save("video_prompt", {"hidden": out.hidden_states[-1][0], "logits": out.logits[0, -1]}, TINY)


def colqwen2(layout: str = "saved-5") -> None:
    """Page and query embeddings with the LoRA in the weights, always with M-RoPE positions."""
    with tempfile.TemporaryDirectory() as folder:
        tiny.write_colqwen2(Path(folder), TINY, layout)
        model = ColQwen2ForRetrieval.from_pretrained(folder, dtype=torch.float32).eval()
    arrays: Arrays = {}
    pages(model, arrays)
    for template, written in cases.QUERY_WRITTEN.items():
        for n, text in enumerate(cases.QUERIES):
            ids = token_ids(written.format(text), None)
            mask = torch.ones_like(ids)
            place, _ = model.vlm.get_rope_index(ids, types_of(ids), attention_mask=mask)
            out = model(input_ids=ids, attention_mask=mask, position_ids=place)
            arrays[f"query {template} {n}"] = out.embeddings[0]
    arrays["margin page"] = margin_page(model)
    save("colqwen2", arrays, TINY)


def pages(model: ColQwen2ForRetrieval, arrays: Arrays) -> None:
    """A left-padded batch of pages, as the reference's processor makes it."""
    pictures = [cases.picture(*size, seed=n) for n, size in enumerate(cases.PAGES)]
    values, grids = processed(cases.PAGES, pictures, SIZE)
    rows = [token_ids(cases.PAGE_WRITTEN, grid[None])[0] for grid in grids]
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), cases.PAD)
    mask = torch.zeros_like(ids)
    for n, row in enumerate(rows):
        ids[n, -len(row) :] = row
        mask[n, -len(row) :] = 1
    counts = grids.prod(-1).tolist()
    per_row = torch.nn.utils.rnn.pad_sequence(values.split(counts), batch_first=True)
    inputs = {"input_ids": ids, "attention_mask": mask, "image_grid_thw": grids}
    # transformers drops M-RoPE for ColQwen2 unless it is given the positions (5.3 to 5.23).
    place, _ = model.vlm.get_rope_index(
        ids, types_of(ids), image_grid_thw=grids, attention_mask=mask
    )
    found = model(**inputs, pixel_values=per_row, position_ids=place).embeddings
    flat = model(**inputs, pixel_values=per_row).embeddings
    for n, row in enumerate(rows):
        arrays[f"page {n}"] = found[n, -len(row) :]
        arrays[f"page {n} without M-RoPE"] = flat[n, -len(row) :]


def margin_page(model: ColQwen2ForRetrieval) -> torch.Tensor:
    """Embedding of a page whose blank blocks are skipped: the rest keep their positions."""
    page = cases.page_with_margins(*cases.MARGIN_PAGE)
    values, grids = processed(cases.MARGIN_PAGE, [page], SIZE)
    blocks = values.numpy().reshape(-1, 4, 3, 392)
    kept = (np.ptp(blocks, axis=3).max(axis=(1, 2)) > 0) | (np.ptp(blocks, axis=1).max((1, 2)) > 0)
    grid = tuple(grids[0].tolist())
    whole = token_ids(cases.PAGE_WRITTEN, grids)
    stay = np.ones(whole.shape[1], bool)
    stay[whole[0].numpy() == cases.IMAGE] = kept
    place, _ = model.vlm.get_rope_index(whole, types_of(whole), image_grid_thw=grids)
    ids, place = whole[:, stay], place[..., stay]
    features = kept_features(model.vlm.visual, values.numpy(), grid, kept)
    embeds = model.get_input_embeddings()(ids).clone()
    embeds[ids == cases.IMAGE] = features
    hidden = model.vlm.language_model(inputs_embeds=embeds, position_ids=place).last_hidden_state
    print(f"margin page: {int(kept.sum())} of {len(kept)} blocks kept")
    return torch.nn.functional.normalize(model.embedding_proj_layer(hidden), dim=-1)[0]


def wide() -> None:
    """One layer at the width of Qwen2-VL-2B; weights in bfloat16, arithmetic in float32."""
    model = qwen2vl(WIDE, "bfloat16")
    features = model.model.visual(
        torch.tensor(cases.patches(16)), grid_thw=torch.tensor([[1, 4, 4]])
    ).pooler_output
    ids = torch.tensor([[5, cases.VISION_START, *[cases.IMAGE] * 4, cases.VISION_END, 7, 8, 9]])
    out = model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=torch.tensor(cases.patches(16)),
        image_grid_thw=torch.tensor([[1, 4, 4]]),
        mm_token_type_ids=types_of(ids),
        output_hidden_states=True,
    )
    found = {"ids": ids[0], "features": features, "hidden": out.hidden_states[-1][0]}
    save("wide", found | {"logits": out.logits[0, -1]}, WIDE)


def main() -> None:
    """Record all fixtures."""
    preprocessing()
    video_preprocessing()
    model = qwen2vl(TINY)
    positions(model)
    vision(model)
    video(model)
    decoder("decoder", TINY, list(cases.PROMPTS))
    decoder("decoder_untied", UNTIED, ["image"])
    colqwen2()
    wide()
    total = sum(file.stat().st_size for file in cases.FIXTURES.iterdir())
    print(f"{total / 1e6:.2f} MB in {cases.FIXTURES}")
    assert total < MAX_TOTAL_BYTES


if __name__ == "__main__":
    main()
