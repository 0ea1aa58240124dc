"""The decoder: embeddings and positions to hidden states (retriever) or logits (generator).

One session serves both roles: with LoRA factors as inputs it is ColQwen2, without plain Qwen2-VL.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.config import TextConfig, TokenIds
from models.errors import ModelFilesError
from models.kv_cache import KVCache
from models.positions import mrope_positions, token_types
from models.session import Cancellation, check_inputs, ensure_finite
from models.vision import Patches, VisionFeatures

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


def open_embeddings(path: Path, config: TextConfig) -> NDArray[np.floating]:
    """Memory-map the token embeddings (vocab, H); only rows that are used are read."""
    try:
        table: NDArray[np.floating] = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise ModelFilesError(f"{path}: cannot be read ({error}); build the folder again") from None
    if table.shape != (config.vocab_size, config.hidden_size):
        raise ModelFilesError(
            f"{path}: has shape {table.shape}, config.json wants "
            f"{(config.vocab_size, config.hidden_size)}; build the folder again"
        )
    return table


class Decoder:
    """Runs decoder.onnx; embeds tokens and places visual features among them."""

    def __init__(
        self,
        session: ort.InferenceSession,
        path: Path,
        embeddings: NDArray[np.floating],
        config: TextConfig,
        tokens: TokenIds,
    ) -> None:
        past = (None, config.n_kv_heads, None, config.head_dim)
        wanted: dict[str, Sequence[int | None]] = {
            "inputs_embeds": (None, None, config.hidden_size),
            "position_ids": (3, None, None),
            f"past.{config.n_layers - 1}.value": past,
        }
        check_inputs(session, path, wanted)
        self._session = session
        self._embeddings = embeddings
        self._tokens = tokens
        self.config = config
        types = {each.name: each.type for each in session.get_inputs()}
        self._path = path
        # ONNX Runtime lists inputs that have a default apart from those that have none.
        self._lora_shapes = {
            each.name: each.shape for each in session.get_overridable_initializers()
        }
        half = types["past.0.key"] == "tensor(float16)"
        self._cache_type: type[np.generic] = np.float16 if half else np.float32

    def check_lora(self, lora: Mapping[str, ort.OrtValue], file: Path) -> None:
        """Raise ModelFilesError naming the first LoRA factor that this graph has no place for."""
        for name, factor in lora.items():
            sizes, wanted = factor.shape(), self._lora_shapes.get(name)
            fixed = 0 if name.endswith(".lora_A") else 1
            if wanted is None or len(sizes) != 2 or sizes[fixed] != wanted[fixed]:
                raise ModelFilesError(
                    f"{file}: {name} {sizes} has no place in {self._path.name} ({wanted}); "
                    "the two do not belong together, build the folder again"
                )

    def new_cache(self) -> KVCache:
        """Return an empty KV cache that fits this decoder."""
        config = self.config
        return KVCache(config.n_layers, config.n_kv_heads, config.head_dim, self._cache_type)

    def embed(self, token_ids: IntArray, features: FloatArray | None = None) -> FloatArray:
        """Return (L, H) float32: token embeddings, `features` in place of the visual pads."""
        embedded: FloatArray = self._embeddings[token_ids].astype(np.float32)
        if features is None:  # a pad that the model itself generates is a token like any other
            return embedded
        is_pad = np.isin(token_ids, (self._tokens.image, self._tokens.video))
        assert is_pad.sum() == len(features), "visual pads and features differ in number"
        embedded[is_pad] = features
        return embedded

    def positions(
        self, token_ids: IntArray, visuals: Sequence[Patches | VisionFeatures] = ()
    ) -> tuple[IntArray, int]:
        """M-RoPE positions (3, L) of a sequence from its start, and the next position."""
        types = token_types(token_ids, self._tokens.image, self._tokens.video)
        grids, kept = [each.grid_thw for each in visuals], [each.kept for each in visuals]
        return mrope_positions(types, grids, kept)

    def hidden(
        self,
        embedded: Sequence[FloatArray],
        positions: Sequence[IntArray],
        lora: Mapping[str, ort.OrtValue],
        cancellation: Cancellation | None = None,
    ) -> list[FloatArray]:
        """Return (L, H) hidden states after the last norm for each sequence of a batch.

        embedded   (L, H) float32 each; padded to the longest on the right, where the causal
                   mask keeps padding from being seen
        positions  (3, L) each
        """
        lengths = [len(each) for each in embedded]
        batch, longest, width = len(lengths), max(lengths), self.config.hidden_size
        x = np.zeros((batch, longest, width), np.float32)
        places = np.zeros((3, batch, longest), np.int64)
        for row, (values, at) in enumerate(zip(embedded, positions, strict=True)):
            x[row, : len(values)], places[:, row, : len(values)] = values, at
        feeds = {
            "inputs_embeds": x,
            "position_ids": places,
            "seqlens_k": np.array(lengths, np.int32) - 1,
            "total_sequence_length": np.array(longest, np.int32),
            "logits_positions": np.zeros(1, np.int64),
            **self._empty_past(batch),
        }
        inputs = {name: ort.OrtValue.ortvalue_from_numpy(each) for name, each in feeds.items()}
        options = ort.RunOptions()
        options.only_execute_path_to_fetches = True  # without lm_head
        with (cancellation or Cancellation()).watch(options):
            run = self._session.run_with_ort_values
            states = run(["hidden"], {**inputs, **lora}, options)[0].numpy()
        return [states[row, :length] for row, length in enumerate(lengths)]

    def _empty_past(self, batch: int) -> dict[str, NDArray[np.generic]]:
        config = self.config
        empty = np.zeros((batch, config.n_kv_heads, 0, config.head_dim), self._cache_type)
        return {
            f"past.{layer}.{part}": empty
            for layer in range(config.n_layers)
            for part in ("key", "value")
        }

    def extend(
        self,
        cache: KVCache,
        embedded: FloatArray,
        positions: IntArray,
        cancellation: Cancellation | None = None,
        with_logits: bool = True,
    ) -> FloatArray | None:
        """Run (L, H) tokens at (3, L) positions behind the cache, which grows by them in place.

        Returns the logits (V,) after the last token, or None without `with_logits`.
        Raises ModelNumbersError on NaN or infinity; Cancelled if stopped, the cache unchanged.
        """
        n_new = len(embedded)
        total = cache.past_length + n_new
        cache.reserve(total)
        binding = self._session.io_binding()
        binding.bind_cpu_input("inputs_embeds", embedded[None])
        binding.bind_cpu_input("position_ids", np.ascontiguousarray(positions[:, None]))
        binding.bind_cpu_input("seqlens_k", np.array([total - 1], np.int32))
        binding.bind_cpu_input("total_sequence_length", np.array(total, np.int32))
        binding.bind_cpu_input("logits_positions", np.array([n_new - 1], np.int64))
        buffers = iter(cache.buffers)
        for layer in range(self.config.n_layers):
            for part in ("key", "value"):
                buffer = next(buffers)
                binding.bind_ortvalue_input(f"past.{layer}.{part}", buffer)
                binding.bind_ortvalue_output(f"present.{layer}.{part}", buffer)
        options = ort.RunOptions()
        if with_logits:
            binding.bind_output("logits")
        else:
            options.only_execute_path_to_fetches = True
        with (cancellation or Cancellation()).watch(options):
            self._session.run_with_iobinding(binding, options)
        cache.past_length = total
        if not with_logits:
            return None
        logits: FloatArray = binding.get_outputs()[-1].numpy()[0]
        return ensure_finite(logits, "the logits")
