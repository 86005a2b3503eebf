"""How much memory a training run takes on each device, estimated before anything is loaded.

    terms = estimate(architecture(config)[0], Load(...))
    peaks(terms)["updating"] / 2**30  # GiB

What transformers 5 and TRL 1.16 do, on which the terms rest:

* `bf16: true` wraps the forward pass in autocast and nothing else. Weights, gradients and AdamW's two states have
  the precision of the loaded weights; there are no float32 master weights beside bfloat16 ones. Float32 weights are
  copied to bfloat16 for the multiplications; the residual stream and the key-value cache stay float32.
* Data-parallel processes hold everything, and DDP a second copy of the gradients in its buckets.
* Sharded over W processes, FSDP2 keeps float32 weights, gradients and two states, 16 bytes a parameter in all.
  DeepSpeed's ZeRO-3 comes to the same 16: bfloat16 weights and gradients, float32 master weights and two states.
  Both multiply in bfloat16 and gather weights for it, FSDP2 a layer at a time, ZeRO-3 by default a billion.
* `trl.beta` > 0 loads a second model, in the policy's precision, but not with LoRA, whose adapters can be
  switched off. FSDP2 gathers all of it at once.
* The LM head never makes the logits of all tokens: it goes in tiles of 4,096 tokens x 32,768 words.
* Without vLLM a process samples all its rollouts of a generation at once.

How far off the estimates are, all on CPU, none compared with a GPU (`tests/test_memory.py`, but for the last row):

| estimate | measured | off by |
|---|---|---|
| weights, gradients, AdamW's states | a model after one AdamW step, whole and with LoRA | 0 bytes |
| key-value cache | transformers' `DynamicCache` after sampling | 0 bytes |
| activations and largest step of an update | every tensor of a pass at Qwen2.5-Math's sizes | 0 to +3 % |
| the same with LoRA on all layers | the same | -5 to +9 % |
| LM head as on a GPU | every tensor of a pass, Triton's kernels left out | -4 to +1 % |
| a generation and its updates | every tensor of a run by `ktae train`'s trainer, 0.4M parameters | +2 to +3 % |
| the same | resident memory of two updates of SmolLM2-135M: 5.3 GiB, of which 0.5 libraries | -1 % |

Activations are those of layers like Llama's and Qwen's; other kinds may differ. Not counted: the libraries themselves,
CUDA's context, communication buffers, what an allocator keeps in reserve.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ktae.advantages import LEAST_AT_ONCE, SHARE
from ktae.extras import require
from ktae.train.recipe import Lora

Phase = Literal["evaluating", "sampling", "scoring", "updating"]
TRAINING: tuple[Phase, ...] = ("sampling", "scoring", "updating")

_ADAPTER_BYTES = 4  # PEFT makes adapters of bfloat16 weights float32
_ZERO_LIVE, _ZERO_BUCKET = 1_000_000_000, 500_000_000  # stage3_max_live_parameters and reduce_bucket_size by default
_TILE_TOKENS, _TILE_WORDS = 4096, 32768  # TRL's TOKEN_CHUNK_SIZE and _CHUNKED_LOGPROB_CHUNK_SIZE


@dataclass(frozen=True)
class Architecture:
    """What of a causal language model its memory depends on.

    Attributes:
        parameters: all of them; tied embeddings once.
        layers, hidden, heads, intermediate, vocabulary: as in transformers' configurations.
        query, key_value: width of all queries, and of all keys, of one token.
        tied: the LM head is the embedding.
        context: tokens at most, None if the configuration does not say.
    """

    parameters: int
    layers: int
    hidden: int
    heads: int
    query: int
    key_value: int
    intermediate: int
    vocabulary: int
    tied: bool
    context: int | None

    @property
    def embeddings(self) -> int:
        """Parameters of the embedding and, if it is one of its own, the LM head."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def layer(self) -> int:
        """Parameters of one layer; what is neither layer nor embedding is the last norm."""
        return (self.parameters - self.embeddings - self.hidden) // self.layers


@dataclass(frozen=True)
class Load:
    """What one device has to do. Lengths are in tokens, the longest that can occur.

    Attributes:
        per_device: rollouts in one forward and backward pass.
        sampled: rollouts that the device samples for one generation.
        rollouts: those of all devices together.
        prompt, completion: of one rollout.
        weight_bytes: of one loaded weight, 2 or 4.
        autocast: multiply in 16 bits whatever the weights are (`trl.bf16`, `trl.fp16`).
        checkpointing: keep each layer's input only and compute the rest again (`trl.gradient_checkpointing`).
        reference: hold a reference model (`trl.beta` > 0, all weights trained).
        adapters: LoRA's parameters, which alone are trained; 0 trains all weights.
        states: values that the optimizer keeps of each trained weight: 2 for AdamW.
        vllm: sample with vLLM, whose memory is a share of the device that `estimate` does not know.
        ktae: key-token values, of which every device computes all.
        group: rollouts of one prompt, which are compared with each other.
        evaluated: completions that an evaluation before and after training generates together; 0 for none.
        processes: that train together.
        sharding: what spreads weights, gradients and states over the processes; None for nothing.
        accelerator: a GPU, where the LM head's tiles are folded in place.
    """

    per_device: int
    sampled: int
    rollouts: int
    prompt: int
    completion: int
    weight_bytes: int = 4
    autocast: bool = False
    checkpointing: bool = False
    reference: bool = False
    adapters: int = 0
    states: int = 2
    vllm: bool = False
    ktae: bool = False
    group: int = 1
    evaluated: int = 0
    processes: int = 1
    sharding: Literal["FSDP2", "ZeRO-3"] | None = None
    accelerator: bool = False

    @property
    def tokens(self) -> int:
        """Of one rollout with its prompt."""
        return self.prompt + self.completion

    @property
    def stored_bytes(self) -> int:
        """Of one trained weight, its gradient and each of its states, unless adapters are trained."""
        return 4 if self.sharding and self.autocast else self.weight_bytes

    @property
    def compute_bytes(self) -> int:
        """Of one value in a multiplication."""
        return 2 if self.autocast else self.weight_bytes

    @property
    def stream_bytes(self) -> int:
        """Of one value in the residual stream."""
        return 2 if self.sharding and self.autocast else self.weight_bytes

    @property
    def casts(self) -> bool:
        """Whether autocast copies the weights."""
        return self.compute_bytes < self.stream_bytes


@dataclass(frozen=True)
class Term:
    """A part of a device's memory.

    Attributes:
        name: what it is.
        formula: how `bytes` comes about, in words and figures.
        bytes: of one device.
        phases: when it is there.
    """

    name: str
    formula: str
    bytes: int
    phases: tuple[Phase, ...]


def architecture(config: Any) -> tuple[Architecture, torch.nn.Module]:
    """A model's sizes, and the model without its weights.

    Args:
        config: a transformers configuration of a causal language model.

    Returns:
        The sizes, parameters counted, and the model on the meta device.

    Raises:
        ValueError: transformers has no causal language model for the configuration.
    """
    with torch.device("meta"):
        model = require("transformers", extra="train").AutoModelForCausalLM.from_config(config)
    text = config.get_text_config()
    heads = text.num_attention_heads
    head_size = getattr(text, "head_dim", None) or text.hidden_size // heads
    sizes = Architecture(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        heads=heads,
        query=heads * head_size,
        key_value=(getattr(text, "num_key_value_heads", None) or heads) * head_size,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        vocabulary=text.vocab_size,
        tied=model.get_input_embeddings().weight is model.get_output_embeddings().weight,
        context=getattr(text, "max_position_embeddings", None),
    )
    return sizes, model


def adapter_parameters(model: Any, lora: Lora) -> int:
    """How many parameters LoRA adds: rank x (inputs + outputs) of each linear layer that gets an adapter."""
    return sum(
        lora.rank * (module.in_features + module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and (
            module is not model.get_output_embeddings()
            if lora.target_modules == "all-linear"
            else any(f".{name}".endswith(f".{target}") for target in lora.target_modules)
        )
    )


def cache_bytes(model: Architecture, rollouts: int, tokens: int, value_bytes: int) -> int:
    """Keys and values of all layers; the last token sampled is not in it.

    >>> sizes = dict(parameters=0, layers=28, hidden=3584, heads=28, query=3584, key_value=512)
    >>> qwen_7b = Architecture(**sizes, intermediate=18944, vocabulary=152064, tied=False, context=4096)
    >>> cache_bytes(qwen_7b, rollouts=1, tokens=2, value_bytes=2)
    57344
    """
    return 2 * model.layers * model.key_value * value_bytes * rollouts * (tokens - 1)


def estimate(model: Architecture, load: Load) -> list[Term]:
    """The memory of one device, term by term; terms of 0 bytes are left out."""
    terms = (*_states(model, load), *_rollouts(model, load), *_update(model, load), *_evaluation(model, load))
    return [term for term in terms if term.bytes]


def peaks(terms: Iterable[Term]) -> dict[Phase, int]:
    """Bytes in each phase of a run: what is there then, added up."""
    totals: dict[Phase, int] = {}
    for term in terms:
        for phase in term.phases:
            totals[phase] = totals.get(phase, 0) + term.bytes
    return totals


def _states(model: Architecture, load: Load) -> Iterator[Term]:
    shards = load.processes if load.sharding else 1
    over = f" / {shards}" if shards > 1 else ""
    if load.adapters:
        weights = model.parameters * load.weight_bytes + load.adapters * _ADAPTER_BYTES
        formula = f"{model.parameters:,} x {load.weight_bytes} B + {load.adapters:,} x {_ADAPTER_BYTES} B"
        trained, value = load.adapters, _ADAPTER_BYTES
    else:
        trained, value = model.parameters, load.stored_bytes
        weights, formula = trained * value, f"{trained:,} x {value} B"
    yield Term("weights", formula + over, weights // shards, TRAINING)
    yield Term("gradients", f"{trained:,} x {value} B{over}", trained * value // shards, ("updating",))
    if load.processes > 1 and not load.sharding:
        yield Term("gradient buckets", "DDP's copy of the gradients", trained * value, ("updating",))
    states = load.states * trained * value // shards
    yield Term("optimizer", f"{trained:,} x {load.states} states x {value} B{over}", states, TRAINING)
    if load.reference:
        value = 2 if load.sharding == "ZeRO-3" and load.autocast else load.weight_bytes
        formula = f"trl.beta > 0: {model.parameters:,} x {value} B{over}"
        yield Term("reference model", formula, model.parameters * value // shards, TRAINING)
    if load.sharding == "FSDP2":
        gathered = load.compute_bytes * (2 * model.layer + model.embeddings)
        formula = f"two layers, embedding and LM head x {load.compute_bytes} B"
        yield Term("gathered weights", formula, gathered, ("updating",))
        if load.reference:
            whole = model.parameters * load.compute_bytes
            yield Term("gathered reference", "FSDP2: all layers at once", whole, ("scoring",))
    if load.sharding == "ZeRO-3":
        live = min(model.parameters, _ZERO_LIVE)
        formula = f"ZeRO-3: {live:,} weights, {_ZERO_BUCKET:,} gradients x 2 B"
        yield Term("gathered weights", formula, 2 * (live + _ZERO_BUCKET), ("updating",))


def _rollouts(model: Architecture, load: Load) -> Iterator[Term]:
    if not load.vllm:
        phases: tuple[Phase, ...] = ("sampling",)
        yield from _generation("sampling", model, load, load.sampled, load.stream_bytes, load.compute_bytes, phases)
    # Ids and masks of prompts and completions, twice while they are joined; four float32 values a completion token.
    values = load.sampled * (32 * load.tokens + 16 * load.completion)
    yield Term(
        "rollouts", f"{load.sampled:,} x {load.tokens:,} tokens: ids, masks, log-probabilities", values, TRAINING
    )
    if load.ktae:
        yield _key_token_values(load)


def _key_token_values(load: Load) -> Term:
    """Of all rollouts: ids, mask, values and what is logged of them; and the tables of those looked at together.

    Tables take up to 200 bytes a token on an accelerator, up to 100 on a CPU, where each thread has a group in hand.
    Both were measured on a CPU, with tokens in context that are all different; fewer bytes where tokens repeat.
    """
    tokens, group = load.rollouts * load.completion, load.group * load.completion
    if load.accelerator:
        at_once, table_bytes = max(int(SHARE * tokens), LEAST_AT_ONCE, group), 200
    else:
        at_once, table_bytes = torch.get_num_threads() * group, 100
    at_once = min(at_once, tokens)
    formula = f"48 B x {load.rollouts:,} x {load.completion:,} tokens on every device + {table_bytes} B x {at_once:,}"
    return Term("key-token values", formula, 48 * tokens + table_bytes * at_once, ("scoring",))


def _update(model: Architecture, load: Load) -> Iterator[Term]:
    """Activations of one pass, those of a layer as Llama and Qwen compute it.

    What autograd saves of a layer, in values a token: 4 x intermediate and 4 x query in the precision of the
    multiplications; the norms' and residuals' inputs, whose bytes a hidden value depend on which casts are needed; the
    attention mask, one value a token attended to. Going backward a layer takes 2 x intermediate more.
    """
    tokens = load.per_device * load.tokens
    c, s = load.compute_bytes, load.stream_bytes
    hidden_bytes = {(4, 4): 24, (2, 4): 26, (2, 2): 16}[c, s]
    saved = 4 * c * (model.intermediate + model.query) + hidden_bytes * model.hidden + c * load.tokens + 4 * model.heads
    copies = 2 * model.layer if load.casts else 0
    mask = tokens * load.tokens
    backward = tokens * 2 * c * model.intermediate + s * model.hidden * model.intermediate
    if load.adapters:  # PEFT's copies of what goes into them, as measured with adapters on all layers
        backward += tokens * model.intermediate * (4 if s == 2 else 2)
    elif model.tied:  # the LM head's gradient waits for the embedding's
        backward += s * model.vocabulary * model.hidden
    head_forward, head_backward = _head(model, load)
    head = f"LM head, {min(tokens, _TILE_TOKENS):,} tokens x {_TILE_WORDS:,} words at a time"
    if load.checkpointing:
        kept = model.layers * tokens * model.hidden * s
        formula = f"{model.layers} layers' inputs: {tokens:,} tokens x {model.hidden:,} x {s} B"
        forward = model.layers * copies + max(tokens * 4 * c * model.intermediate, head_forward)
        steps = {
            "one layer, computed again and differentiated": tokens * saved + copies + backward,
            "forward pass" + (" with 16-bit copies of the weights" if copies else ""): forward,
            head: head_backward,
        }
    else:
        kept = model.layers * (tokens * saved + copies)
        formula = f"{model.layers} layers x {tokens:,} tokens x {saved:,} B" + (", 16-bit weights" if copies else "")
        steps = {"one layer's gradients": backward, head: head_backward}
    yield Term("update: activations", formula, kept + mask, ("updating",))
    largest = max(steps, key=lambda step: steps[step])
    yield Term("update: largest step", largest, steps[largest], ("updating",))


def _head(model: Architecture, load: Load) -> tuple[int, int]:
    """Forward and backward through TRL's tiled LM head (`trl.kernels.chunked_logprob`)."""
    c, s = load.compute_bytes, load.stream_bytes
    tokens = load.per_device * load.tokens
    # On a GPU only completion tokens are scored.
    scored = load.per_device * load.completion if load.accelerator else tokens
    rows, words = min(scored, _TILE_TOKENS), min(model.vocabulary, _TILE_WORDS)
    tile = rows * _TILE_WORDS * c + (words * model.hidden * c if load.casts else 0)
    # Without Triton float32 operations fold the tile; three of their results live at once, seven going backward.
    folded = 0 if load.accelerator else rows * words * 4
    hidden = tokens * model.hidden * (12 if s == 4 else 8)
    weight = 0 if load.adapters else model.vocabulary * model.hidden
    gradients = hidden + 2 * scored * model.hidden * 4 + weight * 4
    converted = weight * s if s < 4 else 0  # once all tiles are done
    return hidden + tile + 3 * folded, gradients + tile + max(7 * folded + folded // 4, converted)


def _evaluation(model: Architecture, load: Load) -> Iterator[Term]:
    """On the main process, with the weights as they were loaded and without autocast."""
    if load.evaluated:
        phases: tuple[Phase, ...] = ("evaluating",)
        value = load.weight_bytes
        yield Term("evaluation: weights", f"{model.parameters:,} x {value} B", model.parameters * value, phases)
        yield from _generation("evaluation", model, load, load.evaluated, value, value, phases)


def _generation(
    when: str,
    model: Architecture,
    load: Load,
    rollouts: int,
    value_bytes: int,
    compute_bytes: int,
    phases: tuple[Phase, ...],
) -> Iterator[Term]:
    """transformers' generate: the key-value cache at its end, and the prompts' pass or the last tokens' logits."""
    token = cache_bytes(model, 1, 2, value_bytes)
    formula = f"{rollouts:,} x {load.tokens - 1:,} tokens x {token:,} B"
    yield Term(f"{when}: key-value cache", formula, cache_bytes(model, rollouts, load.tokens, value_bytes), phases)
    # Logits are there as computed, in float32, and twice as probabilities.
    logits = rollouts * model.vocabulary * (value_bytes + 12)
    layer = 3 * compute_bytes * model.intermediate + 4 * value_bytes * model.hidden + load.prompt
    prompts = rollouts * load.prompt * layer
    formula = f"{rollouts:,} prompts x {load.prompt:,} tokens x {layer:,} B"
    if logits > prompts:
        formula = f"{rollouts:,} x {model.vocabulary:,} logits x {value_bytes + 12} B"
    yield Term(f"{when}: largest step", formula, max(logits, prompts), phases)
