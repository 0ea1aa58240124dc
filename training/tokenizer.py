"""Byte-level BPE over English and Japanese with Qwen's special tokens, and the two templates."""

import random
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.normalizers import NFC

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Qwen2's own split: words with their space, single digits, runs of punctuation.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
PAGE_PREFIX = "<|im_start|>user\n<|vision_start|>"
PAGE_SUFFIX = "<|vision_end|>Describe the image.<|im_end|><|endoftext|>"
QUERY_AUGMENTATION = "<|endoftext|>" * 2  # template "bare" of models/text.py


def train(folder: Path, vocab_size: int, characters: int = 3_000_000, seed: int = 0) -> Tokenizer:
    """Train the tokenizer on a prepared text folder, as many characters of each language."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        max_token_length=36,
    )
    tokenizer.train_from_iterator(_sample(folder, characters, seed), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return tokenizer


def _sample(folder: Path, characters: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    texts: list[str] = []
    for language, share in (("en", characters), ("ja", characters // 2)):
        lines = (folder / f"{language}.txt").read_text(encoding="utf-8").splitlines()
        rng.shuffle(lines)
        taken = 0
        for line in lines:
            if taken >= share:
                break
            texts.append(line)
            taken += len(line)
    return texts


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the id of every special token."""
    return {token: tokenizer.token_to_id(token) for token in SPECIAL}


def query_text(query: str) -> str:
    """Return a query as the embedded model is asked.

    ColQwen2 puts "Query: " before it and ten tokens behind it. Beside the few words of a question
    those twelve vectors outweigh it in MaxSim, and find something on every page.
    """
    return query + QUERY_AUGMENTATION
