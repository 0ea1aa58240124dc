"""Qwen2-VL (arXiv:2409.12191) answering about images: prefill, decode, stream, stop.

The KV caches of the last conversations are kept. A prompt that begins like one of them (the same
pages, then another question) pays only for what differs; its images are not even encoded again.
"""

import time
from collections.abc import Generator as Pieces
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.conversations import Conversation, Conversations, text_keys
from models.decoder import Decoder
from models.errors import ModelShapeError, PromptError
from models.images import VisualInput, preprocess
from models.sampling import Sampler, Sampling, is_looping
from models.session import Cancellation, Cancelled
from models.text import Message, Tokenizer, Visual
from models.vision import Patches, VisionFeatures, VisionTower

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
VisualSource = Image.Image | VisualInput | VisionFeatures
Limits = tuple[int | None, int | None]  # least and most pixels of an image
Turn = tuple[str, str]  # an earlier question and its answer

DEFAULT_MAX_NEW_TOKENS = 512
# Tokens run in one go while reading the prompt: enough to fill the cores, few enough to keep
# activations small.
PREFILL_CHUNK = 512

StopReason = Literal["end", "length", "repetition", "cancelled"]


@dataclass
class Timings:
    """What an answer cost: seconds of wall time, tokens of prompt, cache and answer.

    The time a reader takes between two pieces is not part of `decode_s`.
    """

    vision_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    n_prompt_tokens: int = 0
    n_reused_tokens: int = 0
    n_tokens: int = 0


@dataclass(frozen=True)
class GeneratorOptions:
    """Pixel limits and stop tokens, from the model folder's files."""

    min_pixels: int
    max_pixels: int
    skip_blank_blocks: bool
    stop_ids: frozenset[int]
    sampling: Sampling


@dataclass
class _Progress:
    """What is known of an answer in the making.

    Apart from `Answer`, so that the work does not hold on to the answer: one that is dropped
    ends, and gives its conversation back, at once.
    """

    timings: Timings = field(default_factory=Timings)
    stop_reason: StopReason | None = None


class Answer(Iterator[str]):
    """The streamed text of one answer; `timings` and `stop_reason` fill in as it goes.

    Iterate to get pieces of text, never half a character. Raises ModelNumbersError while
    iterating if the model's numbers break.
    """

    def __init__(
        self, pieces: Pieces[str, None, None], progress: _Progress, cancellation: Cancellation
    ) -> None:
        self._pieces = pieces
        self._progress = progress
        self._cancellation = cancellation

    def __next__(self) -> str:
        return next(self._pieces)

    @property
    def timings(self) -> Timings:
        """What the answer has cost so far."""
        return self._progress.timings

    @property
    def stop_reason(self) -> StopReason | None:
        """Why the answer ended; None while it has not begun."""
        return self._progress.stop_reason

    def close(self) -> None:
        """Stop within one token, from any thread; what was generated stays in the cache."""
        self._cancellation.cancel()
        try:
            self._pieces.close()
        except ValueError:  # another thread is in the middle of it and ends it by itself
            pass


@dataclass(frozen=True)
class _Prompt:
    """A prompt's ids (L,), positions (3, L), and keys (L,) that also tell images apart."""

    ids: IntArray
    keys: IntArray
    positions: IntArray
    next_position: int
    visuals: Sequence[Patches | VisionFeatures]


class Generator:
    """Answers about images and videos; safe to use from several threads."""

    def __init__(
        self,
        vision: VisionTower,
        decoder: Decoder,
        tokenizer: Tokenizer,
        options: GeneratorOptions,
    ) -> None:
        self._vision = vision
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._conversations = Conversations(decoder)
        self.options = options

    def generate(
        self,
        images: Sequence[VisualSource],
        prompt: str,
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
        history: Sequence[Turn] = (),
        system: str | None = None,
        sampling: Sampling | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        cancellation: Cancellation | None = None,
    ) -> Answer:
        """Answer `prompt` about the images (or videos), which stand in the first turn.

        history     earlier questions and answers about the same images
        sampling    None: as generation_config.json says
        min_pixels, max_pixels  of an image, instead of the model folder's; the least alone
                    raises the most
        Raises PromptError at once if the prompt is empty or longer than the context, ImageError
        for an unusable image. The work is done while the answer is iterated.
        """
        made = self._prompt(images, prompt, history, system, (min_pixels, max_pixels))
        room = self._decoder.config.max_positions - len(made.ids)
        cancellation = cancellation or Cancellation()
        progress = _Progress(Timings(n_prompt_tokens=len(made.ids)))
        sampler = Sampler(sampling or self.options.sampling, made.ids)
        pieces = self._stream(progress, made, sampler, min(max_new_tokens, room), cancellation)
        return Answer(pieces, progress, cancellation)

    def logits(self, images: Sequence[VisualSource], prompt: str) -> FloatArray:
        """Return (vocab,) float32: the logits of the first new token. Raises as `generate`."""
        made = self._prompt(images, prompt, (), None)
        conversation = self._conversations.take(made.keys)
        logits = self._prefill(conversation, made, Timings(), Cancellation())
        self._conversations.give_back(conversation)
        return logits

    def _prompt(
        self,
        images: Sequence[VisualSource],
        prompt: str,
        history: Sequence[Turn],
        system: str | None,
        limits: Limits = (None, None),
    ) -> _Prompt:
        visuals = [self._patches(each, limits) for each in images]
        places = tuple(Visual(int(each.kept.sum()), each.kind) for each in visuals)
        messages = [Message("system", (system,))] if system is not None else []
        for question, reply in history:
            messages += [Message("user", (question,)), Message("assistant", (reply,))]
        messages.append(Message("user", (prompt,)))
        first = next(at for at, each in enumerate(messages) if each.role == "user")
        messages[first] = Message("user", (*places, *messages[first].parts))
        ids = self._tokenizer.chat(messages)
        limit = self._decoder.config.max_positions
        if len(ids) >= limit:
            raise PromptError(
                f"the prompt has {len(ids)} tokens, the model's context is {limit}: "
                "give fewer or smaller pages, or a shorter question"
            )
        positions, following = self._decoder.positions(ids, visuals)
        return _Prompt(ids, self._keys(ids, positions, visuals), positions, following, visuals)

    def _patches(self, image: VisualSource, limits: Limits) -> Patches | VisionFeatures:
        if isinstance(image, VisionFeatures):
            if image.tower != self._vision.name:
                raise ModelShapeError(
                    f"these features come from {image.tower}, the generator sees with "
                    f"{self._vision.name}: give it the image"
                )
            return image
        if isinstance(image, Image.Image):
            least, most = limits
            most = most or max(self.options.max_pixels, least or 0)
            image = preprocess(image, min(least or self.options.min_pixels, most), most)
        return Patches.choose(image, self.options.skip_blank_blocks)

    def _keys(
        self,
        ids: IntArray,
        positions: IntArray,
        visuals: Sequence[Patches | VisionFeatures],
    ) -> IntArray:
        """Return `text_keys`, and for visual pads numbers that only the same image gives."""
        keys = text_keys(ids, positions)
        for (start, end), visual in zip(self._spans(ids, visuals), visuals, strict=True):
            # Odd multiplier: the pads of one image differ, those of two hardly ever meet.
            places = np.arange(end - start, dtype=np.int64) * 0x5851F42D4C957F2D
            keys[start:end] ^= visual.digest ^ places
        return keys

    def _spans(
        self, ids: IntArray, visuals: Sequence[Patches | VisionFeatures]
    ) -> list[tuple[int, int]]:
        """Start and end of each visual's pads among the ids."""
        pads = [self._tokenizer.id_of(f"<|{kind}_pad|>") for kind in ("image", "video")]
        at = np.flatnonzero(np.isin(ids, pads))
        ends = np.cumsum([int(each.kept.sum()) for each in visuals])
        return [
            (int(at[end - int(each.kept.sum())]), int(at[end - 1]) + 1)
            for end, each in zip(ends, visuals, strict=True)
        ]

    def _prefill(
        self,
        conversation: Conversation,
        prompt: _Prompt,
        timings: Timings,
        cancellation: Cancellation,
    ) -> FloatArray:
        """Run what the cache does not hold yet; return the logits (V,) after the last token."""
        start = time.perf_counter()
        reused = timings.n_reused_tokens = conversation.cache.past_length
        features = self._features(prompt, reused, cancellation)
        timings.vision_s = time.perf_counter() - start
        ids = prompt.ids[reused:]
        embedded = self._decoder.embed(ids, features)
        logits: FloatArray | None = None
        for at in range(0, len(ids), PREFILL_CHUNK):
            end = min(at + PREFILL_CHUNK, len(ids))
            logits = self._decoder.extend(
                conversation.cache,
                embedded[at:end],
                prompt.positions[:, reused + at : reused + end],
                cancellation,
                with_logits=end == len(ids),
            )
            conversation.keys += prompt.keys[reused + at : reused + end].tolist()
        timings.prefill_s = time.perf_counter() - start - timings.vision_s
        assert logits is not None
        return logits

    def _features(
        self, prompt: _Prompt, reused: int, cancellation: Cancellation
    ) -> FloatArray | None:
        """Features (n, H) of the visual pads from token `reused` on; encodes only those images."""
        parts = []
        for (start, end), visual in zip(
            self._spans(prompt.ids, prompt.visuals), prompt.visuals, strict=True
        ):
            if end > reused:
                if isinstance(visual, Patches):
                    visual = self._vision.encode(visual, cancellation)
                parts.append(visual.features[max(0, reused - start) :])
        return np.concatenate(parts) if parts else None

    def _stream(
        self,
        progress: _Progress,
        prompt: _Prompt,
        sampler: Sampler,
        max_new_tokens: int,
        cancellation: Cancellation,
    ) -> Pieces[str, None, None]:
        conversation = self._conversations.take(prompt.keys)
        detokenizer = self._tokenizer.detokenizer()
        progress.stop_reason = "cancelled"  # until it ends for another reason
        try:
            tokens = self._tokens(
                conversation, progress, prompt, sampler, max_new_tokens, cancellation
            )
            for token in tokens:
                if piece := detokenizer.push(token):
                    yield piece
        except (Cancelled, GeneratorExit) as stopped:
            self._conversations.give_back(conversation)
            if isinstance(stopped, GeneratorExit):
                raise
        else:
            self._conversations.give_back(conversation)
        # After any other error the conversation is dropped: its numbers may be broken.
        if rest := detokenizer.flush():
            yield rest

    def _tokens(
        self,
        conversation: Conversation,
        progress: _Progress,
        prompt: _Prompt,
        sampler: Sampler,
        max_new_tokens: int,
        cancellation: Cancellation,
    ) -> Iterator[int]:
        """Yield the tokens of an answer, each as soon as it is chosen."""
        timings = progress.timings
        logits = self._prefill(conversation, prompt, timings, cancellation)
        tokens: list[int] = []
        while len(tokens) < max_new_tokens:
            start = time.perf_counter()
            if tokens:
                logits = self._step(conversation, tokens[-1], prompt, len(tokens), cancellation)
            token = sampler.choose(logits)
            timings.decode_s += time.perf_counter() - start
            if token in self.options.stop_ids:
                progress.stop_reason = "end"
                return
            tokens.append(token)
            timings.n_tokens = len(tokens)
            yield token
            if is_looping(tokens):
                progress.stop_reason = "repetition"
                return
        progress.stop_reason = "length"

    def _step(
        self,
        conversation: Conversation,
        token: int,
        prompt: _Prompt,
        n_tokens: int,
        cancellation: Cancellation,
    ) -> FloatArray:
        """Run one generated token, the `n_tokens`-th; return the logits (V,) of the next."""
        ids = np.array([token], np.int64)
        positions = np.full((3, 1), prompt.next_position + n_tokens - 1, np.int64)
        embedded = self._decoder.embed(ids)
        logits = self._decoder.extend(conversation.cache, embedded, positions, cancellation)
        conversation.keys += text_keys(ids, positions).tolist()
        assert logits is not None
        return logits
