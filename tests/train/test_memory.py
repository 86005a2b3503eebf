"""Estimates of memory against what is really there: models, caches, and every tensor of a pass or a whole update."""

import dataclasses
import gc

import pytest
import torch
from allocated import Allocated

pytest.importorskip("trl")

from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config
from trl.kernels import chunked_logprob
from trl.trainer import utils as trl_utils

from ktae import KTAEConfig, kernels, key_token_values
from ktae.train.memory import Load, adapter_parameters, architecture, cache_bytes, estimate, peaks
from ktae.train.recipe import Lora

# The libraries' deprecations among themselves, as in `ktae.train.run`.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
BYTES = {torch.float32: 4, torch.bfloat16: 2}
QWEN = {
    "1.5B": Qwen2Config(
        hidden_size=1536,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        intermediate_size=8960,
        vocab_size=151936,
        tie_word_embeddings=True,
    ),
    "7B": Qwen2Config(
        hidden_size=3584,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        intermediate_size=18944,
        vocab_size=152064,
        tie_word_embeddings=False,
    ),
}
SMALL = LlamaConfig(
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=24,
    intermediate_size=200,
    vocab_size=500,
    tie_word_embeddings=False,
    pad_token_id=0,
)
EVERY_TERM = Load(
    per_device=4, sampled=8, rollouts=16, prompt=10, completion=20, reference=True, ktae=True, evaluated=4
)


def materialize(model):
    """Puts a model that is on the meta device on the CPU."""
    made = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if parameter not in made:
                    made[parameter] = torch.nn.Parameter(
                        torch.empty_like(parameter, device="cpu"), requires_grad=parameter.requires_grad
                    )
                module._parameters[name] = made[parameter]
        for name, buffer in module._buffers.items():
            module._buffers[name] = torch.empty_like(buffer, device="cpu")


def with_layers(config, layers):
    return type(config).from_dict({**config.to_dict(), "num_hidden_layers": layers, "layer_types": None})


def one_pass(config, dtype, *, autocast, checkpointing, rollouts, prompt, completion, lora=None, fake=True):
    """Most bytes that a pass forward and backward takes beside weights and gradients, and the estimate of it.

    The second of two passes is measured, when gradients of the first are there to be added to.
    """
    sizes, model = architecture(config)
    model.to(dtype)
    trl_utils.add_fused_lm_head(model, outputs=("log_probs", "entropy"))  # as GRPOTrainer does
    adapters = adapter_parameters(model, lora) if lora else 0
    if lora:
        model = get_peft_model(model, LoraConfig(r=lora.rank, target_modules=lora.target_modules))
    ids = torch.zeros(rollouts, prompt + completion, dtype=torch.long)
    with FakeTensorMode(allow_non_fake_inputs=True) if fake else torch.random.fork_rng():
        materialize(model)
        model.train()
        if checkpointing:
            model.activation_checkpointing_enable()
            model.enable_input_require_grads()
        with Allocated() as allocated:
            for parameter in model.parameters():
                allocated.add(parameter.detach())
            for _ in range(2):
                before = allocated.now
                allocated.peak = before
                labels = ids.clone()
                labels[:, :-completion] = -100
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                    out = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, fused_lm_head=True)
                log_probs = out.log_probs[:, -completion:]
                loss = torch.exp(log_probs - log_probs.detach()).mean()
                loss.backward()
                measured = allocated.peak - before
                del labels, out, log_probs, loss
    load = Load(
        per_device=rollouts,
        sampled=rollouts,
        rollouts=rollouts,
        prompt=prompt,
        completion=completion,
        weight_bytes=BYTES[dtype],
        autocast=autocast,
        checkpointing=checkpointing,
        adapters=adapters,
        accelerator=not fake,
    )
    return measured, sum(term.bytes for term in estimate(sizes, load) if term.name.startswith("update: "))


@pytest.mark.parametrize(
    ("config", "parameters", "context"),
    [(QWEN["1.5B"], 1_543_714_304, 32768), (QWEN["7B"], 7_615_616_512, 32768)],
    ids=QWEN,
)
def test_parameters_and_layers(config, parameters, context):
    sizes, model = architecture(config)
    assert (sizes.parameters, sizes.context) == (parameters, context)
    assert sizes.layer == sum(parameter.numel() for parameter in model.model.layers[0].parameters())
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("lora", [None, Lora(rank=4), Lora(rank=3, target_modules=["q_proj", "down_proj"])])
@pytest.mark.parametrize("dtype", BYTES, ids=str)
def test_weights_gradients_and_optimizer_are_exact(dtype, lora):
    sizes, meta = architecture(SMALL)
    model = AutoModelForCausalLM.from_config(SMALL).to(dtype)
    if lora:
        model = get_peft_model(model, LoraConfig(r=lora.rank, target_modules=lora.target_modules))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    model(input_ids=torch.ones(2, 5, dtype=torch.long)).logits.float().sum().backward()
    optimizer.step()
    states = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    gradients = [parameter.grad for parameter in trained]

    adapters = adapter_parameters(meta, lora) if lora else 0
    load = Load(4, 4, 4, 8, 8, weight_bytes=BYTES[dtype], adapters=adapters)
    terms = {term.name: term.bytes for term in estimate(sizes, load)}
    for name, tensors in {"weights": model.parameters(), "gradients": gradients, "optimizer": states}.items():
        assert terms[name] == sum(tensor.numel() * tensor.element_size() for tensor in tensors), name


@pytest.mark.parametrize("dtype", BYTES, ids=str)
def test_the_key_value_cache_is_exact(dtype):
    model = AutoModelForCausalLM.from_config(SMALL).to(dtype)
    # Float32 weights with autocast as well: the keys come out of the rotary embedding in float32.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model.generate(
            torch.ones(3, 7, dtype=torch.long), max_new_tokens=5, min_new_tokens=5, return_dict_in_generate=True
        )
    held = sum(
        tensor.numel() * tensor.element_size()
        for layer in out.past_key_values.layers
        for tensor in (layer.keys, layer.values)
    )
    assert held == cache_bytes(architecture(SMALL)[0], rollouts=3, tokens=12, value_bytes=BYTES[dtype])


@pytest.mark.parametrize(
    ("dtype", "autocast"),
    [(torch.float32, True), (torch.bfloat16, True), (torch.float32, False)],
    ids=["float32 with autocast", "bfloat16", "float32"],
)
@pytest.mark.parametrize(
    ("size", "layers", "rollouts", "checkpointing"),
    [("1.5B", 28, 8, True), ("7B", 8, 2, True), ("1.5B", 4, 1, False)],
    ids=["1.5B with checkpointing", "layers of 7B with checkpointing", "layers of 1.5B"],
)
def test_activations(size, layers, rollouts, checkpointing, dtype, autocast):
    measured, estimated = one_pass(
        with_layers(QWEN[size], layers),
        dtype,
        autocast=autocast,
        checkpointing=checkpointing,
        rollouts=rollouts,
        prompt=1024,
        completion=3072,
    )
    assert measured * 0.97 <= estimated <= measured * 1.03


@pytest.mark.parametrize("checkpointing", [True, False], ids=["checkpointing", "no checkpointing"])
@pytest.mark.parametrize("dtype", BYTES, ids=str)
def test_activations_with_adapters(dtype, checkpointing):
    measured, estimated = one_pass(
        with_layers(QWEN["1.5B"], 8 if checkpointing else 4),
        dtype,
        autocast=True,
        checkpointing=checkpointing,
        rollouts=8,
        prompt=1024,
        completion=3072,
        lora=Lora(),
    )
    assert measured * 0.93 <= estimated <= measured * 1.12


@pytest.mark.parametrize(
    ("dtype", "autocast"),
    [(torch.float32, True), (torch.bfloat16, True), (torch.float32, False)],
    ids=["float32 with autocast", "bfloat16", "float32"],
)
def test_lm_head_as_on_a_gpu(monkeypatch, dtype, autocast):
    """The path that TRL takes where there is Triton, without the kernels, which allocate nothing."""

    class Kernel:
        def __getitem__(self, grid):
            return lambda *args, **kwargs: None

    for module in (chunked_logprob, trl_utils):
        monkeypatch.setattr(module, "_use_triton", lambda device: True)
    monkeypatch.setattr(chunked_logprob, "_forward_kernel", Kernel())
    monkeypatch.setattr(chunked_logprob, "_backward_kernel", Kernel())
    monkeypatch.setattr(chunked_logprob, "triton", type("triton", (), {"cdiv": lambda a, b: -(-a // b)}), raising=False)
    monkeypatch.setattr(chunked_logprob, "_addmm_fp32", lambda *args: None)  # in place, on a GPU
    config = LlamaConfig(
        hidden_size=256,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        vocab_size=40000,
        tie_word_embeddings=False,
    )
    measured, estimated = one_pass(
        config, dtype, autocast=autocast, checkpointing=True, rollouts=4, prompt=50, completion=150, fake=False
    )
    assert measured * 0.95 <= estimated <= measured * 1.05


@pytest.mark.parametrize(
    "trl",
    [{"beta": 0.001}, {"beta": 0.0, "gradient_checkpointing": True, "bf16": True}],
    ids=["reference model", "checkpointing, autocast"],
)
def test_a_whole_generation_and_its_updates(tmp_path, trl):
    """Sampling, key-token values and four updates by the trainer that `ktae train` uses."""
    from ktae.models.load import load_model
    from ktae.train.data import load_data
    from ktae.train.recipe import load_recipe
    from ktae.train.run import load_rewards
    from ktae.train.settings import grpo_config
    from ktae.train.trainer import KTAERunTrainer

    lengths = ["--trl.max_steps", "4", "--trl.max_completion_length", "48"]
    recipe = load_recipe("quickstart", [*lengths, "--data.train_rows", "16", "--data.test_rows", "1"])
    recipe.trl.update({**trl, "save_strategy": "no"})
    rows, _ = load_data(recipe.data, seed=0)
    model, tokenizer = load_model(recipe.model)
    sizes, _ = architecture(model.config)
    gc.collect()
    with Allocated() as allocated:
        for parameter in model.parameters():
            allocated.add(parameter.detach())
        trainer = KTAERunTrainer(
            model=model,
            processing_class=tokenizer,
            reward_funcs=list(load_rewards(recipe).values()),
            args=grpo_config(recipe, "grpo_ktae", tmp_path),
            train_dataset=rows,
        )
        trainer.train()
    batch = recipe.batch
    load = Load(
        per_device=batch.per_device,
        sampled=batch.prompts * batch.rollouts,
        rollouts=batch.prompts * batch.rollouts,
        prompt=max(len(ids) for ids in tokenizer(list(rows["prompt"]))["input_ids"]),
        completion=48,
        autocast=trl.get("bf16", False),
        checkpointing=trl.get("gradient_checkpointing", False),
        reference=trl["beta"] > 0,
        ktae=True,
        group=batch.rollouts,
    )
    terms = estimate(sizes, load)
    estimated = max(peaks(terms).values())
    assert allocated.peak * 0.95 <= estimated <= allocated.peak * 1.1


def test_sharding_divides_the_states():
    sizes, _ = architecture(SMALL)
    batch = {"per_device": 4, "sampled": 8, "rollouts": 16, "prompt": 10, "completion": 20, "reference": True}
    alone = Load(**batch, autocast=True)
    terms = {}
    for name, load in {
        "alone": alone,
        "DDP": dataclasses.replace(alone, processes=4),
        "FSDP2": dataclasses.replace(alone, processes=4, sharding="FSDP2"),
        "FSDP2 of bfloat16": dataclasses.replace(alone, processes=4, sharding="FSDP2", weight_bytes=2),
    }.items():
        terms[name] = {term.name: term.bytes for term in estimate(sizes, load)}
    states = ("weights", "gradients", "optimizer")
    assert sum(terms["alone"][name] for name in states) == 16 * sizes.parameters
    assert terms["DDP"] == terms["alone"] | {"gradient buckets": 4 * sizes.parameters}
    for name in ("FSDP2", "FSDP2 of bfloat16"):  # accelerate trains in float32 whatever was loaded
        assert sum(terms[name][state] for state in states) == 4 * sizes.parameters
    assert terms["FSDP2"]["reference model"] == sizes.parameters
    assert terms["FSDP2"]["update: activations"] < terms["alone"]["update: activations"], "the stream is bfloat16"


def test_peaks_add_up_what_is_there_at_the_same_time():
    sizes, _ = architecture(SMALL)
    terms = estimate(sizes, Load(4, 8, 16, prompt=10, completion=20, ktae=True, evaluated=4))
    totals = peaks(terms)
    by_name = {term.name: term.bytes for term in terms}
    kept = by_name["weights"] + by_name["optimizer"] + by_name["rollouts"]
    assert totals["scoring"] == kept + by_name["key-token values"]
    assert totals["sampling"] == kept + by_name["sampling: key-value cache"] + by_name["sampling: largest step"]
    assert totals["evaluating"] == sum(size for name, size in by_name.items() if name.startswith("evaluation: "))
    assert totals["updating"] == kept + by_name["gradients"] + sum(
        size for name, size in by_name.items() if name.startswith("update: ")
    )
    with_vllm = estimate(sizes, Load(4, 8, 16, prompt=10, completion=20, vllm=True))
    assert not any(term.name.startswith("sampling") for term in with_vllm)


@pytest.mark.parametrize("groups", [1, 64])
def test_key_token_values(groups, monkeypatch):
    """The tables of a GPU's path, measured on a CPU with tokens that are all different."""
    monkeypatch.setattr(kernels, "usable", lambda tensor: False)
    size, columns = 16, 512
    ids = torch.arange(groups * size * columns).view(-1, columns)
    mask, rewards, group_ids = torch.ones_like(ids), torch.arange(len(ids)) % 2.0, torch.arange(len(ids)) // size
    load = Load(1, len(ids), len(ids), 1, completion=columns, ktae=True, group=size, accelerator=True)
    (term,) = (term for term in estimate(architecture(SMALL)[0], load) if term.name == "key-token values")
    with Allocated() as allocated:
        key_token_values(ids, mask, rewards, group_ids, config=KTAEConfig.recommended())
    tables = term.bytes - 48 * ids.numel()
    values_and_mask = 5 * ids.numel()
    assert 0.95 * tables <= allocated.peak - values_and_mask <= tables
