"""From words to token ids and back: templates, visual pads, and text as it streams.

The templates are those of Qwen2-VL (arXiv:2409.12191) and ColQwen2 (ColPali, arXiv:2407.01449).
Control tokens are put in by id and text is encoded with special tokens switched off, so whatever
a user or a document writes, `<|im_end|>` included, is ordinary text: nothing has to be escaped.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers.decoders import DecodeStream

from models.errors import ModelFilesError, PromptError

END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
PAD_OF = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
NEEDED = (END_OF_TEXT, START, END, VISION_START, VISION_END, *PAD_OF.values())
# Control tokens that carry part of an answer, parsed by `grounding`; the others are never shown.
SHOWN = (
    "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>",
    "<|quad_start|>", "<|quad_end|>",
)  # fmt: skip

SYSTEM_PROMPT = "You are a helpful assistant."
PAGE_PROMPT = "Describe the image."
N_AUGMENTATION = 10
# What surrounds a query, as (prefix, number of augmentation tokens, suffix): what v1.0 was trained
# with; what transformers adds; what colpali-engine dropped; what the embedded model is trained
# with. Part of a model folder, because vectors depend on it.
QUERY_TEMPLATES = {
    "colqwen2-v1.0": ("Query: ", N_AUGMENTATION, ""),
    "transformers": ("Query: ", N_AUGMENTATION, "\n"),
    "colpali-engine-0.3.13": ("", N_AUGMENTATION, ""),
    "bare": ("", 2, ""),
}

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Visual:
    """Place of an image or a video in a message: as many pads as it has visual tokens."""

    n_tokens: int
    kind: Literal["image", "video"] = "image"


@dataclass(frozen=True)
class Message:
    """One turn of a conversation: text and visuals in the order they are to be read."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[str | Visual, ...]

    @property
    def text(self) -> str:
        """All the text of the message."""
        return "".join(part for part in self.parts if isinstance(part, str))


@dataclass(frozen=True)
class _Control:
    """A control token in a sequence under construction; plain `str` is text."""

    token_id: int
    n: int = 1


class Tokenizer:
    """The tokenizer of a model folder, with the templates of both roles."""

    def __init__(self, file: Path, expected_ids: Mapping[str, int] | None = None) -> None:
        """Read tokenizer.json and check that it is one of Qwen2-VL's kind.

        expected_ids  token → id as config.json has them, such as {"<|image_pad|>": 151655}
        Raises ModelFilesError if the file is missing or damaged, lacks a control token, or
        numbers one otherwise than `expected_ids`.
        """
        self._tokenizer = _read(file)
        self._control = _control_tokens(self._tokenizer)
        missing = [token for token in NEEDED if token not in self._control]
        if missing:
            raise ModelFilesError(
                f"{file} has no token {', '.join(missing)}: it is not the tokenizer of Qwen2-VL"
            )
        for token, wanted in (expected_ids or {}).items():
            found = self._control.get(token)
            if found != wanted:
                raise ModelFilesError(
                    f"{file} numbers {token} {found}, config.json says {wanted}: "
                    "the two do not belong together"
                )
        self._protect_control_tokens(file)
        shown = {self._control.get(token) for token in SHOWN}
        self._hidden = frozenset(self._control.values()) - shown

    def _protect_control_tokens(self, file: Path) -> None:
        """Switch control tokens off in text, and prove it on each of them."""
        # A token listed as an ordinary added token would still be found: list it as special.
        added = [
            tokenizers.AddedToken(token, special=True, normalized=False) for token in self._control
        ]
        self._tokenizer.add_special_tokens(added)
        self._tokenizer.encode_special_tokens = True
        every = "".join(self._control)
        leaked = set(self._control.values()).intersection(self.encode(every))
        if leaked:
            names = [token for token, token_id in self._control.items() if token_id in leaked]
            raise ModelFilesError(f"{file} reads {', '.join(names)} out of plain text")

    def __len__(self) -> int:
        """Count of ids, control tokens included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def id_of(self, token: str) -> int:
        """Return the id of a control token such as `<|im_end|>`; KeyError if it has none."""
        return self._control[token]

    def piece(self, token_id: int) -> str:
        """Return what one token reads, control tokens included; part of a character is U+FFFD."""
        return self._tokenizer.decode([token_id], skip_special_tokens=False)

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; control tokens written in it are text like any other.

        Raises PromptError for text that is not valid Unicode.
        """
        try:
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        except (UnicodeError, TypeError):
            raise PromptError(
                "the text holds half of a surrogate pair: not valid Unicode"
            ) from None

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, without control tokens other than those of `grounding`."""
        shown = [int(token_id) for token_id in ids if int(token_id) not in self._hidden]
        return self._tokenizer.decode(shown, skip_special_tokens=False)

    def detokenizer(self) -> "Detokenizer":
        """Start to decode a stream of ids."""
        return Detokenizer(self._tokenizer, self._hidden)

    def chat(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        number_visuals: bool = False,
    ) -> Ids:
        """(L,) ids of a conversation in Qwen2-VL's chat template.

        A system message is put in front unless the first message is one. number_visuals writes
        `Picture 1: `, `Video 1: ` before each, as the template's add_vision_id does.
        Raises PromptError if there is no message, or a user's has no text.
        """
        if not messages:
            raise PromptError("the prompt is empty: write a question or an instruction")
        if messages[0].role != "system":
            messages = [Message("system", (SYSTEM_PROMPT,)), *messages]
        counts = {"image": 0, "video": 0}
        pieces: list[str | _Control] = []
        for message in messages:
            _require_text(message)
            pieces += [self._one(START), message.role + "\n"]
            for part in message.parts:
                if isinstance(part, Visual) and number_visuals:
                    counts[part.kind] += 1
                    word = "Picture" if part.kind == "image" else "Video"
                    pieces.append(f"{word} {counts[part.kind]}: ")
                pieces += [part] if isinstance(part, str) else self._visual(part)
            pieces += [self._one(END), "\n"]
        if add_generation_prompt:
            pieces += [self._one(START), "assistant\n"]
        return self._assemble(pieces)

    def page_prompt(self, n_tokens: int) -> Ids:
        """(L,) ids of a page for the retriever: its visual tokens and ColQwen2's instruction."""
        return self._assemble(
            [
                *(self._one(START), "user\n"),
                *self._visual(Visual(n_tokens)),
                *(PAGE_PROMPT, self._one(END), self._one(END_OF_TEXT)),
            ]
        )

    def query(self, text: str, template: str = "colqwen2-v1.0") -> Ids:
        """(L,) ids of a question for the retriever, with its augmentation tokens.

        Raises PromptError for an empty question, ModelFilesError for an unknown template.
        """
        if not text.strip():
            raise PromptError("the question is empty")
        if template not in QUERY_TEMPLATES:
            known = ", ".join(QUERY_TEMPLATES)
            raise ModelFilesError(f"model.json: no query template {template!r}; known: {known}")
        prefix, n_augmentation, suffix = QUERY_TEMPLATES[template]
        augmentation = _Control(self._control[END_OF_TEXT], n_augmentation)
        return self._assemble([prefix + text, augmentation, suffix])

    def query_spans(
        self, text: str, template: str = "colqwen2-v1.0"
    ) -> tuple[tuple[int, int] | None, ...]:
        """Return the span of characters of `text` behind each id of `query`; None: template."""
        prefix = QUERY_TEMPLATES[template][0]
        found = self._tokenizer.encode(prefix + text, add_special_tokens=False).offsets
        spans = [
            (max(0, start - len(prefix)), end - len(prefix)) if end > len(prefix) else None
            for start, end in found
        ]
        return (*spans, *[None] * (len(self.query(text, template)) - len(spans)))

    def _one(self, token: str) -> _Control:
        return _Control(self._control[token])

    def _visual(self, visual: Visual) -> list[str | _Control]:
        pads = _Control(self._control[PAD_OF[visual.kind]], visual.n_tokens)
        return [self._one(VISION_START), pads, self._one(VISION_END)]

    def _assemble(self, pieces: Iterable[str | _Control]) -> Ids:
        """Ids of pieces in a row; neighbouring texts are encoded as one, as in one string."""
        ids: list[int] = []
        text = ""
        for piece in pieces:
            if isinstance(piece, str):
                text += piece
                continue
            ids += self.encode(text) if text else []
            ids += [piece.token_id] * piece.n
            text = ""
        return np.array(ids + (self.encode(text) if text else []), np.int64)


class Detokenizer:
    """Text of a stream of ids, never half a character; in sum equal to `Tokenizer.decode`."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, hidden: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._hidden = hidden
        self._stream = DecodeStream(skip_special_tokens=False)
        self._ids: list[int] = []
        self._n_sent = 0

    def push(self, token_id: int) -> str:
        """Text that this token completes; empty while a character is still in the making."""
        if token_id in self._hidden:
            return ""
        self._ids.append(token_id)
        return self._sent(self._stream.step(self._tokenizer, token_id) or "")

    def flush(self) -> str:
        """Text held back at the end: a character that was never finished, as U+FFFD."""
        whole = self._tokenizer.decode(self._ids, skip_special_tokens=False)
        return self._sent(whole[self._n_sent :])

    def _sent(self, text: str) -> str:
        self._n_sent += len(text)
        return text


def _read(file: Path) -> tokenizers.Tokenizer:
    if not file.is_file():
        raise ModelFilesError(f"{file} is missing: the folder is not a model")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception for bad files
        raise ModelFilesError(f"{file} is not a tokenizer: {error}") from None
    # A tokenizer saved from a training run may still cut or pad what it is given.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _control_tokens(tokenizer: tokenizers.Tokenizer) -> dict[str, int]:
    """Token → id of everything that steers the model: special, or written `<|…|>`."""
    return {
        added.content: token_id
        for token_id, added in tokenizer.get_added_tokens_decoder().items()
        if added.special or (added.content.startswith("<|") and added.content.endswith("|>"))
    }


def _require_text(message: Message) -> None:
    if message.role == "user" and not message.text.strip():
        raise PromptError("the prompt is empty: write a question or an instruction")
