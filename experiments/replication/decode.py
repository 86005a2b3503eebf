"""Sampling from a small Llama on a CPU: the model's arithmetic alone, with one fixed cache for keys and values.

transformers' own loop spends most of its time outside the arithmetic when a model is this small; a test compares the
log-probabilities with those of the model's `forward`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Completions:
    """Rollouts, each (B, T): token ids (padding after the end), mask, log-probabilities and entropies in nats."""

    token_ids: Tensor
    mask: Tensor
    log_probabilities: Tensor
    entropies: Tensor

    def rows(self, rows: slice) -> Completions:
        """Those of some rows."""
        return Completions(*(getattr(self, field.name)[rows] for field in fields(self)))

    @staticmethod
    def concatenate(parts: list[Completions], pad: int) -> Completions:
        """All rows of `parts`, which may differ in width."""
        width = max(part.mask.shape[1] for part in parts)

        def joined(name: str) -> Tensor:
            fill = pad if name == "token_ids" else 0
            tensors = [getattr(part, name) for part in parts]
            return torch.cat([F.pad(x, (0, width - x.shape[1]), value=fill) for x in tensors])

        return Completions(*(joined(field.name) for field in fields(Completions)))


def weight(linear: torch.nn.Module) -> Tensor:
    """The weight of a linear layer, with its low-rank adapter if it has one."""
    adapted = getattr(linear, "active_adapters", ())
    merged = linear.weight + sum(linear.get_delta_weight(name) for name in adapted)
    return merged.to(linear.weight.dtype)


class Decoder:
    """The forward pass of a `LlamaForCausalLM` over a growing sequence.

    Rows are padded on the left. A row's positions then start late, which rotary embeddings do not notice: only
    differences of positions enter.
    """

    def __init__(self, model, rows: int, width: int):
        config = model.config
        self.size = config.hidden_size // config.num_attention_heads
        self.heads = config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads
        self.eps, self.model = config.rms_norm_eps, model
        self.layers = [
            (
                layer.input_layernorm.weight,
                torch.cat([weight(getattr(layer.self_attn, f"{part}_proj")) for part in "qkv"]),
                weight(layer.self_attn.o_proj),
                layer.post_attention_layernorm.weight,
                torch.cat([weight(layer.mlp.gate_proj), weight(layer.mlp.up_proj)]),
                weight(layer.mlp.down_proj),
            )
            for layer in model.model.layers
        ]
        self.cos, self.sin = (x[0] for x in model.model.rotary_emb(torch.zeros(1), torch.arange(width)[None]))
        self.keys, self.values = (
            [torch.zeros(rows, self.heads[1], width, self.size) for _ in self.layers] for _ in range(2)
        )

    def forward(self, ids: Tensor, start: int, seen: Tensor) -> Tensor:
        """Logits (B, V) in float32 after the tokens `ids` (B, n), which stand in the columns from `start` on.

        `seen` (B, start + n) is False at padding.
        """
        B, n = ids.shape
        bias = torch.zeros(B, 1, 1, 1, start + n).masked_fill(~seen[:, None, None, None], -1e9)
        if n > 1:
            bias = bias + torch.full((n, n), -1e9).triu(1)
        hidden = self.model.model.embed_tokens.weight[ids]
        columns = slice(start, start + n)
        for (norm, qkv, out, norm2, gate_up, down), keys, values in zip(
            self.layers, self.keys, self.values, strict=True
        ):
            x = F.linear(F.rms_norm(hidden, norm.shape, norm, self.eps), qkv)
            q, k, v = x.float().view(B, n, sum(self.heads), self.size).transpose(1, 2).split(self.heads, dim=1)
            keys[:, :, columns], values[:, :, columns] = self._rotate(k, columns), v
            # Query heads that share a head of the keys, as if they were more queries of it.
            q = self._rotate(q, columns).reshape(B, self.heads[1], -1, self.size)
            scores = (q @ keys[:, :, : start + n].transpose(2, 3) * self.size**-0.5).unflatten(2, (-1, n)) + bias
            attended = scores.softmax(-1).flatten(2, 3) @ values[:, :, : start + n]
            attended = attended.view(B, -1, n, self.size).to(hidden.dtype)
            hidden = hidden + F.linear(attended.transpose(1, 2).reshape(B, n, -1), out)
            gate, up = F.linear(F.rms_norm(hidden, norm2.shape, norm2, self.eps), gate_up).chunk(2, -1)
            hidden = hidden + F.linear(F.silu(gate) * up, down)
        final = self.model.model.norm.weight
        return F.linear(F.rms_norm(hidden[:, -1], final.shape, final, self.eps), self.model.lm_head.weight).float()

    def select(self, rows: Tensor) -> None:
        """Keeps the given rows of the cache, in that order."""
        self.keys, self.values = ([x[rows] for x in cache] for cache in (self.keys, self.values))

    def _rotate(self, x: Tensor, columns: slice) -> Tensor:
        half = self.size // 2
        return x * self.cos[columns] + torch.cat([-x[..., half:], x[..., :half]], -1) * self.sin[columns]


@torch.no_grad()
def sample(
    model,
    prompts: list[list[int]],
    group_size: int,
    max_tokens: int,
    *,
    pad: int,
    eos: int,
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
) -> Completions:
    """`group_size` completions of each prompt, or greedy ones without a generator.

    Log-probabilities and entropies are those of the policy at this temperature.
    """
    width = max(map(len, prompts))
    seen = torch.tensor([[False] * (width - len(prompt)) + [True] * len(prompt) for prompt in prompts])
    rows = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
    decoder = Decoder(model, len(prompts), width + max_tokens)
    logits = decoder.forward(rows, 0, seen)
    repeated = torch.arange(len(prompts)).repeat_interleave(group_size)
    decoder.select(repeated)
    logits, seen = logits[repeated], F.pad(seen[repeated], (0, max_tokens), value=True)

    B = len(repeated)
    ids_BT = torch.full((B, max_tokens), pad)
    mask_BT = torch.zeros(B, max_tokens, dtype=torch.bool)
    logp_BT, entropy_BT = torch.zeros(B, max_tokens), torch.zeros(B, max_tokens)
    alive = torch.arange(B)
    for t in range(max_tokens):
        logp = (logits / temperature).log_softmax(-1)
        probabilities = logp.exp()
        token = logp.argmax(-1)
        if generator is not None:
            drawn = torch.rand(len(alive), 1, generator=generator)
            below = probabilities.cumsum(-1)
            token = (below <= drawn * below[:, -1:]).sum(-1).clamp(max=below.shape[1] - 1)
        ids_BT[alive, t], mask_BT[alive, t] = token, True
        logp_BT[alive, t] = logp.gather(1, token[:, None])[:, 0]
        entropy_BT[alive, t] = -(probabilities * logp).sum(-1)
        going = token != eos
        if t + 1 == max_tokens or not going.any():
            break
        if going.sum() < 0.85 * len(going):  # the rest goes on as a smaller batch
            alive, token, seen = alive[going], token[going], seen[going]
            decoder.select(going.nonzero()[:, 0])
        logits = decoder.forward(token[:, None], width + t, seen[:, : width + t + 1])
    mask_BT &= (ids_BT == eos).cumsum(1) - (ids_BT == eos).long() == 0
    length = int(mask_BT.sum(1).max())
    return Completions(
        token_ids=ids_BT.masked_fill(~mask_BT, pad)[:, :length],
        mask=mask_BT[:, :length],
        log_probabilities=(logp_BT * mask_BT)[:, :length],
        entropies=(entropy_BT * mask_BT)[:, :length],
    )
