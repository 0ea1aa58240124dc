"""Qwen2-VL and its ColQwen2 projection in plain torch, made for short training runs.

Same arithmetic and same parameter names as the hub's checkpoints (`visual.*`, `model.layers.*`,
`model.embed_tokens`, tied head), so a saved state dict *is* a hub checkpoint. Two liberties, both
exact: a still image repeats its pixels over the temporal axis, so the patch weights are summed over
it once; and blank cells may be left out, since positions are inputs.

Papers: Qwen2-VL and M-RoPE arXiv:2409.12191, RoPE 2104.09864, ColPali 2407.01449.
Shapes: B rows, P patches (4 a cell, cell-major), C cells, L tokens, H heads, D head channels.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config import MEAN, PATCH_PX, PROJECTION, STD, ModelConfig, TextConfig, VisionConfig
from training.spelling import SpelledEmbedding


def normalise(patches: Tensor) -> Tensor:
    """Return (…, 588) uint8 patches as the model wants them: each channel centred and scaled."""
    mean, std = (torch.tensor(v, device=patches.device).repeat_interleave(196) for v in (MEAN, STD))
    return (patches.float() / 255 - mean) / std


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate channel pairs (i, i + D/2) of x (B, H, L, D) by angles of (B, 1, L, D/2)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def vision_angles(positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Return cos and sin (B, 1, P, D/2) of the patches' (row, column) positions (B, P, 2)."""
    count = head_dim // 4
    steps = torch.arange(count, device=positions.device, dtype=torch.float32)
    inverse = 10000.0 ** (-steps / count)
    angles = (positions[..., None].float() * inverse).flatten(2)[:, None]
    return angles.cos(), angles.sin()


def text_angles(position_ids: Tensor, config: TextConfig) -> tuple[Tensor, Tensor]:
    """Return cos and sin (B, 1, L, D/2) of (3, B, L): M-RoPE, a section an axis."""
    count = config.head_dim // 2
    steps = torch.arange(count, device=position_ids.device, dtype=torch.float32)
    inverse = config.rope_theta ** (-steps / count)
    angles = position_ids[..., None].float() * inverse  # (3, B, L, D/2)
    sections = angles.split(list(config.mrope_section), dim=-1)
    mixed = torch.cat([section[axis] for axis, section in enumerate(sections)], dim=-1)[:, None]
    return mixed.cos(), mixed.sin()


class VisionBlock(nn.Module):
    """Full attention within an image, then a quick-GELU MLP."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        dim, hidden = config.embed_dim, config.embed_dim * config.mlp_ratio
        self.heads = config.num_heads
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "fc2": nn.Linear(hidden, dim)})

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """Return x (B, P, E) after the block; mask (B, 1, 1, P) is True for real patches."""
        b, p, e = x.shape
        qkv = self.attn["qkv"](self.norm1(x)).view(b, p, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # (B, H, P, D) each
        mixed = F.scaled_dot_product_attention(
            rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype), v, attn_mask=mask
        )
        x = x + self.attn["proj"](mixed.transpose(1, 2).reshape(b, p, e))
        inner = self.mlp["fc1"](self.norm2(x))
        return x + self.mlp["fc2"](inner * torch.sigmoid(1.702 * inner))


class PatchEmbed(nn.Module):
    """The hub's Conv3d weight, applied to still patches as one matrix product."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, dim, (2, PATCH_PX, PATCH_PX), bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        """Return (B, P, E) of patches (B, P, 588), channels first, both frames being equal."""
        weight = self.proj.weight.sum(dim=2).flatten(1)
        return F.linear(patches, weight)


class Merger(nn.Module):
    """Four patches of a cell become one visual token of the decoder's width."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.ln_q = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(4 * dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, out))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, hidden) of x (B, 4C, E)."""
        b, p, e = x.shape
        return self.mlp(self.ln_q(x).view(b, p // 4, 4 * e))


class Vision(nn.Module):
    """The vision tower."""

    def __init__(self, config: VisionConfig, out: int) -> None:
        super().__init__()
        self.head_dim = config.embed_dim // config.num_heads
        self.patch_embed = PatchEmbed(config.embed_dim)
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(config.depth))
        self.merger = Merger(config.embed_dim, out)

    def forward(self, patches: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """Return visual tokens (B, C, hidden) of patches (B, 4C, 588) at positions (B, 4C, 2)."""
        cos, sin = vision_angles(positions, self.head_dim)
        keys = None if mask is None else mask[:, None, None, :]
        x = self.patch_embed(patches).float()  # the residual stream stays fp32 under autocast
        for block in self.blocks:
            x = block(x, cos, sin, keys)
        return self.merger(x)


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm computed in fp32."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x normalised, in x's type."""
        return super().forward(x.float()).to(x.dtype)


class DecoderLayer(nn.Module):
    """Grouped-query causal attention, then a SiLU-gated MLP."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        dim, kv = config.hidden_size, config.num_key_value_heads * config.head_dim
        self.heads, self.head_dim = config.num_attention_heads, config.head_dim
        self.watched = False  # whether to keep what the first head looks at
        self.looked: Tensor | None = None  # its scores (B, L, L) in the last pass, without mask
        self.input_layernorm = RMSNorm(dim, eps=config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(dim, eps=config.rms_norm_eps)
        self.self_attn = nn.ModuleDict(
            {
                "q_proj": nn.Linear(dim, dim),
                "k_proj": nn.Linear(dim, kv),
                "v_proj": nn.Linear(dim, kv),
                "o_proj": nn.Linear(dim, dim, bias=False),
            }
        )
        self.mlp = nn.ModuleDict(
            {
                "gate_proj": nn.Linear(dim, config.intermediate_size, bias=False),
                "up_proj": nn.Linear(dim, config.intermediate_size, bias=False),
                "down_proj": nn.Linear(config.intermediate_size, dim, bias=False),
            }
        )

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """Return x (B, L, E) after the layer; mask (B, 1, L, L) replaces the causal one."""
        b, n, _ = x.shape
        attn, normed = self.self_attn, self.input_layernorm(x)
        q, k, v = (
            attn[name](normed).view(b, n, -1, self.head_dim).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        if self.watched:
            self.looked = q[:, 0] @ k[:, 0].transpose(1, 2) / math.sqrt(self.head_dim)
        repeat = self.heads // k.shape[1]
        mixed = F.scaled_dot_product_attention(
            q,
            k.repeat_interleave(repeat, dim=1),
            v.repeat_interleave(repeat, dim=1),
            attn_mask=mask,
            is_causal=mask is None,
        )
        x = x + attn["o_proj"](mixed.transpose(1, 2).reshape(b, n, -1))
        normed = self.post_attention_layernorm(x)
        gated = F.silu(self.mlp["gate_proj"](normed)) * self.mlp["up_proj"](normed)
        return x + self.mlp["down_proj"](gated)


class Decoder(nn.Module):
    """Token embeddings, layers, final norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, embeds: Tensor, position_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return normed hidden states (B, L, hidden) of embeds, position_ids (3, B, L)."""
        cos, sin = text_angles(position_ids, self.config)
        for layer in self.layers:
            embeds = layer(embeds, cos, sin, mask)
        return self.norm(embeds)


class Yomu(nn.Module):
    """Retriever and generator over one set of weights."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.visual = Vision(config.vision, config.text.hidden_size)
        self.model = Decoder(config.text)
        self.custom_text_proj = nn.Linear(config.text.hidden_size, PROJECTION)
        self.apply(_initialise)
        look_at_neighbours(self.visual)

    def embed(self, ids: Tensor, features: Tensor | None, image_token: int) -> Tensor:
        """Return token embeddings (B, L, hidden), visual tokens in the image-pad places.

        features (n, hidden) holds the visual tokens of all rows, in row-major order.
        """
        embeds = self.model.embed_tokens(ids)
        if features is None:
            return embeds
        places = (ids == image_token)[..., None].expand_as(embeds)
        return embeds.masked_scatter(places, features.to(embeds.dtype))

    def logits(self, hidden: Tensor) -> Tensor:
        """Return vocabulary scores of hidden states, the head being the embedding table."""
        return F.linear(hidden, self.embedding(None))

    def embedding(self, ids: Tensor | None) -> Tensor:
        """Return the embeddings (n, hidden) of tokens, of the whole vocabulary for None."""
        table = self.model.embed_tokens
        if ids is not None:
            return table(ids)
        return table.table() if isinstance(table, SpelledEmbedding) else table.weight

    def project(self, hidden: Tensor) -> Tensor:
        """Return unit vectors (…, 128) of hidden states."""
        return F.normalize(self.custom_text_proj(hidden).float(), dim=-1)


def is_adapted(name: str) -> bool:
    """Whether a parameter of any module is a matrix of the decoder, which a LoRA can change."""
    return ".layers." in name and name.endswith("proj.weight")


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_features))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.05)


NEIGHBOURS = (
    ((0, 1), (0, -1), (1, 0), (-1, 0)),
    ((1, 1), (-1, -1), (1, -1), (-1, 1)),
    ((0, 1), (0, -1), (0, 2), (0, -2)),
)
SHARPNESS = 5.3  # a neighbour's weight exceeds the next cell's by e^2.5 with heads of 40 channels


@torch.no_grad()
def look_at_neighbours(vision: Vision) -> None:
    """Let each head of the first blocks start out looking at one neighbouring patch.

    A glyph lies across patches, so its parts must be brought together before anything can be
    learnt; convolutional starts (ConViT, arXiv:2103.10697) give a transformer that for nothing.
    Constant queries and keys, turned by RoPE, make scores that depend on the offset alone.
    """
    for block, offsets in zip(vision.blocks, NEIGHBOURS, strict=False):
        bias = block.attn["qkv"].bias.view(3, block.heads, 2, 2, -1)  # q k v, head, half, axis, D/4
        frequencies = 10000.0 ** (-torch.arange(bias.shape[-1]) / bias.shape[-1])
        useful = frequencies > 0.05  # slower ones tell no neighbours apart
        for head in range(block.heads):
            for axis, step in enumerate(offsets[head % len(offsets)]):
                angle = -frequencies * step
                bias[0, head, 0, axis] = SHARPNESS * useful
                bias[1, head, 0, axis] = SHARPNESS * useful * angle.cos()
                bias[1, head, 1, axis] = SHARPNESS * useful * angle.sin()


@torch.no_grad()
def whiten_patches(embed: PatchEmbed, patches: Tensor) -> None:
    """Set the patch weights to whitened principal components of sample patches (n, 588).

    Page patches are nearly rank-one (paper), so random weights see mostly brightness; whitening
    gives every direction of ink the same say from the first step.
    """
    dim = embed.proj.weight.shape[0]
    centred = patches.float() - patches.float().mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(patches))
    keep = vectors[:, -dim:] / (values[-dim:].clamp_min(0) + 1e-3 * values[-1]).sqrt()
    mixer = torch.linalg.qr(torch.randn(dim, dim))[0]  # spread the components over channels
    weight = (keep @ mixer).T.view(dim, 3, 1, PATCH_PX, PATCH_PX)
    embed.proj.weight.copy_(weight.expand_as(embed.proj.weight) / 2)
