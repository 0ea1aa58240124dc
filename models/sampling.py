"""Which token comes next: greedy or sampled, as generation_config.json says."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.config import read_json
from models.errors import ModelFilesError

FloatArray = NDArray[np.float32]

# A run of text that only repeats itself: a period of up to this many tokens …
LONGEST_PERIOD = 32
# … seen at least this often, over at least this many tokens: 18 equal rows `| 0 | 0 | 0 |` of a
# table are shorter than that; a model that loops goes on until its cap.
FEWEST_REPEATS = 4
SHORTEST_LOOP = 128


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens.

    temperature, top_k, top_p apply only if `do_sample`; top_k 0 means all tokens.
    repetition_penalty divides positive and multiplies negative logits of tokens already seen,
    those of the prompt included (CTRL, arXiv:1909.05858; as transformers does it).
    """

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    @classmethod
    def from_file(cls, path: Path) -> "Sampling":
        """Read generation_config.json; greedy if there is none. Raises ModelFilesError."""
        config = read_json(path) if path.exists() else {}
        numbers = {}
        for name in ("temperature", "top_k", "top_p", "repetition_penalty"):
            value = config.get(name)  # null and absent both mean: not used
            if value is not None and not isinstance(value, int | float):
                raise ModelFilesError(f"{path}: {name} is {value!r}, wanted a number")
            numbers[name] = getattr(cls, name) if value is None else value
        if numbers["repetition_penalty"] <= 0:
            raise ModelFilesError(f"{path}: repetition_penalty must be above 0")
        return cls(
            do_sample=bool(config.get("do_sample", False)),
            temperature=float(numbers["temperature"]),
            top_k=int(numbers["top_k"]),
            top_p=float(numbers["top_p"]),
            repetition_penalty=float(numbers["repetition_penalty"]),
        )


class Sampler:
    """Chooses the tokens of one answer."""

    def __init__(self, sampling: Sampling, prompt_ids: NDArray[np.int64]) -> None:
        self._sampling = sampling
        self._seen = np.unique(prompt_ids)
        self._random = np.random.default_rng(sampling.seed)

    def choose(self, logits: FloatArray) -> int:
        """Return the next token for logits (V,), and remember it as seen."""
        scores = self._penalised(logits)
        sampling = self._sampling
        if not sampling.do_sample or sampling.top_k == 1 or sampling.temperature <= 0:
            token = int(scores.argmax())
        else:
            ids, p = _nucleus(scores / sampling.temperature, sampling.top_k, sampling.top_p)
            token = int(self._random.choice(ids, p=p))
        if token not in self._seen:
            self._seen = np.append(self._seen, token)
        return token

    def _penalised(self, logits: FloatArray) -> FloatArray:
        penalty = self._sampling.repetition_penalty
        if penalty == 1.0:
            return logits
        scores = logits.copy()
        seen = scores[self._seen]
        scores[self._seen] = np.where(seen > 0, seen / penalty, seen * penalty)
        return scores


def _nucleus(
    scores: FloatArray, top_k: int, top_p: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the ids that top-k and top-p (arXiv:1904.09751) leave, and their probabilities."""
    ids = np.argsort(-scores, kind="stable")[: top_k or None]
    exponent = np.exp(scores[ids].astype(np.float64) - float(scores[ids[0]]))
    p = exponent / exponent.sum()
    # The smallest set whose probability reaches top_p; the most likely token always stays.
    n_kept = int(np.searchsorted(np.cumsum(p), top_p, side="left")) + 1
    p = p[:n_kept]
    return ids[:n_kept], p / p.sum()


def is_looping(tokens: Sequence[int]) -> bool:
    """Whether the end of a token sequence does nothing but repeat itself."""
    for period in range(1, LONGEST_PERIOD + 1):
        length = period * max(FEWEST_REPEATS, -(-SHORTEST_LOOP // period))
        tail = tokens[-length:]
        if len(tail) == length and tail[period:] == tail[:-period]:
            return True
    return False
