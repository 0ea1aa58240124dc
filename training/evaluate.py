"""Measures the model on held-out drawn pages while it trains."""

from pathlib import Path

import torch
from torch import nn

from training import losses
from training.batches import Recipe, Sampler, Tools
from training.stages import Stage

HELD_SEED = 987_654_321
BATCHES = 3


class Held:
    """Batches of pages that training never draws, made once and kept in the work folder."""

    def __init__(self, work: Path, device: torch.device) -> None:
        path = work / "held.pt"
        if not path.exists():
            sampler = Sampler(Tools.load(work), _RECIPE, HELD_SEED)
            torch.save([vars(sampler.batch()) for _ in range(BATCHES)], path)
        from training.batches import Batch

        self.batches = [Batch(**data).to(device) for data in torch.load(path)[:BATCHES]]
        self.image_token = Tools.load(work).tokenizer.token_to_id("<|image_pad|>")

    @torch.no_grad()
    def measure(self, lessons: nn.Module, stage: Stage) -> dict[str, float]:
        """Return the mean of every measurement over the held-out batches."""
        lessons.eval()
        sums: dict[str, list[float]] = {}
        for batch in self.batches:
            decode = stage.match + stage.read > 0
            encoded = losses.encode(lessons.yomu, batch, self.image_token, decode)
            _, parts = losses.see(lessons, encoded.features, batch)
            if stage.match:
                parts |= losses.match(lessons, encoded.hidden, batch, self.image_token)[1]
            if stage.read and bool((batch.targets >= 0).any()):
                parts |= losses.read(lessons.yomu, encoded.hidden, batch)[1]
            for name, value in parts.items():
                sums.setdefault(name, []).append(float(value))
        lessons.train()
        return {name: sum(values) / len(values) for name, values in sums.items()}


_RECIPE = Recipe(queries=2, questions=2, windows=0.7, lines=0.3, fresh=8, buffer=16)
