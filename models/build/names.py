"""One name for each weight, whichever of the five layouts a checkpoint was saved in.

The canonical names are those of the hub's Qwen2-VL files: `model.layers.N…`, `visual.…`,
`lm_head.weight`, and `custom_text_proj.{weight,bias}` for the retriever's projection.
"""

import re

_RULES = (
    (re.compile(r"^base_model\.model\."), ""),  # PEFT
    (re.compile(r"^vlm\."), ""),  # ColQwen2ForRetrieval
    (re.compile(r"^(model\.)?visual\."), "visual."),  # modules since transformers 4.52
    (re.compile(r"^(model\.)?language_model\.(model\.)?"), "model."),
    (re.compile(r"^embedding_proj_layer\."), "custom_text_proj."),
)
_LORA = re.compile(r"^(?P<module>.+)\.lora_(?P<side>[AB])(\.default)?\.weight$")
# Buffers that older transformers saved and nothing needs.
IGNORED = re.compile(r"(rotary_emb|rotary_pos_emb)\.inv_freq$")


def canonical(name: str) -> str:
    """Return the hub's Qwen2-VL name of a tensor saved in any of the five layouts."""
    for pattern, replacement in _RULES:
        name = pattern.sub(replacement, name)
    return name


def lora_parts(name: str) -> tuple[str, str] | None:
    """Return (canonical module, "A" or "B") of a PEFT tensor, or None for any other tensor."""
    match = _LORA.match(name)
    return (canonical(match["module"] + ".")[:-1], match["side"]) if match else None
