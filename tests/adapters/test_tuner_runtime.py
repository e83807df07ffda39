"""What trainers do around the adapter: autocast, checkpointing, compiling, DDP, FSDP, quantised bases, hooks."""

from __future__ import annotations

import pytest
import torch
from oracles import lora_xs as oracle
from peft import PeftModel, get_peft_model
from torch import Tensor, nn

from lora_xs import LoraXsConfig
from lora_xs.errors import UserError

X = torch.linspace(-2, 2, 60).view(5, 12)


def adapted(model: nn.Module | None = None, **settings) -> nn.Module:
    torch.manual_seed(7)
    config = LoraXsConfig(
        **{"r": 4, "lora_alpha": 6, "target_modules": ["first", "second"], "init_std": 0.3, **settings}
    )
    return get_peft_model(oracle.two_layers() if model is None else model, config)


def R_gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad for name, p in model.named_parameters() if "lora_R" in name]


@pytest.fixture
def one_process_group(tmp_path):
    """A gloo group of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_runs_in_half_precision_and_keeps_R_s_gradient_in_fp32(dtype):
    model, x = adapted(), X.clone().requires_grad_(True)
    model(x).square().sum().backward()
    exact, exact_dx = [g.clone() for g in R_gradients(model)], x.grad.clone()
    model.zero_grad()
    x.grad = None
    with torch.autocast("cpu", dtype):
        y = model(x)
        assert y.dtype == dtype
    y.float().square().sum().backward()
    for found, wanted in zip([x.grad, *R_gradients(model)], [exact_dx, *exact], strict=True):
        assert found.dtype == torch.float32
        assert (found - wanted).norm() <= 0.03 * wanted.norm()


def test_backward_inside_autocast_is_the_backward_outside_it():
    model = adapted(oracle.two_layers())
    with torch.autocast("cpu", torch.bfloat16):
        model(X).float().square().sum().backward()
        inside = [g.clone() for g in R_gradients(model)]
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(X).float().square().sum()
    loss.backward()
    assert all(torch.equal(one, other) for one, other in zip(inside, R_gradients(model), strict=True))


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_transformer_s_own_gradient_checkpointing_changes_no_gradient(reentrant):
    def gradients(checkpointing: bool) -> list[Tensor]:
        base = oracle.bert()
        if checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": reentrant})
        config = LoraXsConfig(r=4, target_modules=oracle.ROBERTA_TARGETS, init_std=0.3, task_type="SEQ_CLS")
        torch.manual_seed(7)
        model = get_peft_model(base, config).train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        model(oracle.tokens(), labels=torch.tensor([0, 1, 0])).loss.backward()
        return R_gradients(model)

    for plain, checkpointed in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(checkpointed, plain, atol=0, rtol=1e-6)


def test_compiles_to_one_graph_with_the_same_gradients():
    model = adapted()
    expected = model(X)
    expected.square().sum().backward()
    wanted = [g.clone() for g in R_gradients(model)]
    model.zero_grad()
    torch._dynamo.reset()
    # The backend that needs no C++ compiler: graph capture, forward and backward, is what can break here.
    compiled = torch.compile(model.base_model.model, fullgraph=True, backend="aot_eager")
    y = compiled(X)
    torch.testing.assert_close(y, expected)
    y.square().sum().backward()
    for found, true in zip(R_gradients(model), wanted, strict=True):
        torch.testing.assert_close(found, true)


@pytest.mark.parametrize("wrapped", ["PeftModel", "LoraXsModel"])
def test_ddp_broadcasts_no_factor_and_gives_the_same_gradients(one_process_group, wrapped):
    model = adapted()
    model.base_model.model.register_buffer("counter", torch.zeros(1))
    model(X).square().sum().backward()
    wanted = [g.clone() for g in R_gradients(model)]
    model.zero_grad()
    ddp = nn.parallel.DistributedDataParallel(model if wrapped == "PeftModel" else model.base_model)
    assert not any("lora_" in name for name in ddp.named_module_buffers)
    assert any("counter" in name for name in ddp.named_module_buffers)
    ddp(X).square().sum().backward()
    assert all(torch.equal(found, true) for found, true in zip(R_gradients(model), wanted, strict=True))


def test_fully_sharded_training_gives_the_same_gradients(one_process_group):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = adapted()
    model(X).square().sum().backward()
    wanted = [g.clone() for g in R_gradients(model)]
    model.zero_grad()
    mesh = init_device_mesh("cpu", (1,))
    for layer in (model.base_model.model.first, model.base_model.model.second, model):
        fully_shard(layer, mesh=mesh)
    model(X).square().sum().backward()
    for found, true in zip(R_gradients(model), wanted, strict=True):
        torch.testing.assert_close(found.full_tensor(), true)


def test_hooks_on_the_base_layer_still_run():
    model = adapted()
    expected, seen = model(X), []
    layer = model.base_model.model.first.base_layer
    handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    torch.testing.assert_close(model(X), expected)
    assert seen == [(5, 20)]
    handle.remove()
    plain = layer.forward
    layer.forward = lambda x: (seen.append("replaced"), plain(x))[1]
    torch.testing.assert_close(model(X), expected)
    assert seen[1:] == ["replaced"]


@pytest.fixture
def quantised():
    """A function (bits) that gives `TwoLayers`, wide enough for a quantisation block, on bitsandbytes layers."""
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")

    def build(bits: int) -> nn.Module:
        torch.manual_seed(0)
        model = oracle.TwoLayers()
        for name in ("first", "second"):
            plain = nn.Linear(64, 64)
            if bits == 4:
                layer = bitsandbytes.nn.Linear4bit(64, 64, compute_dtype=torch.float32, quant_type="nf4")
            else:
                layer = bitsandbytes.nn.Linear8bitLt(64, 64, has_fp16_weights=False)
            layer.load_state_dict(plain.state_dict())
            setattr(model, name, layer.to("cpu"))
        return model

    return build


@pytest.mark.parametrize(("bits", "loose"), [(4, 1e-4), (8, 5e-2)])
def test_quantised_bases_train_on_factors_of_the_dequantised_weight(quantised, bits, loose):
    from peft.utils.integrations import dequantize_module_weight

    model = adapted(quantised(bits))
    layer = model.base_model.model.first
    W = dequantize_module_weight(layer.base_layer).detach().float()
    A, B = oracle.factors(W, 4)
    torch.testing.assert_close((layer.lora_B["default"] @ layer.lora_A["default"]).double(), B @ A, atol=1e-4, rtol=0)
    x = torch.randn(16, 64, requires_grad=True)
    own = (layer.lora_A["default"], layer.lora_B["default"], layer.lora_R["default"])
    expected = oracle.forward(x, W, layer.base_layer.bias.float(), *own, layer.scaling["default"])
    found = layer(x)
    assert (found - expected).norm() <= loose * expected.norm()
    wanted = torch.autograd.grad(expected.sum(), (x, own[2]))
    for one, other in zip(torch.autograd.grad(found.sum(), (x, own[2])), wanted, strict=True):
        assert (one - other).norm() <= loose * other.norm()


@pytest.mark.parametrize("bits", [4, 8])
def test_merging_into_a_quantised_weight_is_refused(quantised, bits):
    model = adapted(quantised(bits))
    with pytest.raises(UserError, match=r"first.*quantised"):
        model.merge_and_unload()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("low_memory", [False, True])
def test_an_adapter_on_a_quantised_base_reloads_onto_it(quantised, bits, low_memory, tmp_path):
    model = adapted(quantised(bits)).eval()
    model.save_pretrained(str(tmp_path))
    again = PeftModel.from_pretrained(quantised(bits), str(tmp_path), low_cpu_mem_usage=low_memory)
    x = torch.randn(16, 64)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    with pytest.raises(UserError, match="another base weight"):
        PeftModel.from_pretrained(quantised(12 - bits), str(tmp_path))
