"""Less than 32 bits: asked for explicitly, refused where it would be emulated, and never in what is stored."""

import os
from typing import Any

import pytest
import torch

from b3dist.errors import ConfigError
from b3dist.model.lstm_mtl import LstmMtl
from b3dist.training.fused import fit_stack
from b3dist.training.precision import cpu_has_bf16, fix_order_of_sums, matmul_precision, require_supported
from b3dist.training.trainer import Fit, fit_asset, predict
from tests.training.stacks import CARD, make_members

bf16 = pytest.mark.skipif(not cpu_has_bf16(), reason="this CPU has neither AVX-512 BF16 nor AMX")


def test_tf32_needs_a_gpu() -> None:
    """On a CPU it is refused, with what to ask for instead."""
    with pytest.raises(ConfigError, match="needs a GPU"):
        require_supported("tf32", torch.device("cpu"))
    require_supported("tf32", torch.device("cuda"))


def test_bf16_is_refused_where_the_cpu_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Emulated it would be slower than float32, and nobody would notice."""
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    with pytest.raises(ConfigError, match="AVX-512 BF16"):
        require_supported("bf16", torch.device("cpu"))


def precision_on_gpus() -> tuple[str, bool]:
    """Of matrix products, and whether cuDNN's layers, nn.LSTM among them, multiply in TF32."""
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


def test_matmul_precision_is_put_back() -> None:
    """Also when an asset's training raises meanwhile."""
    before = precision_on_gpus()
    with pytest.raises(ZeroDivisionError), matmul_precision("tf32"):
        assert precision_on_gpus() == ("high", True)
        raise ZeroDivisionError
    assert precision_on_gpus() == before


def test_float32_is_float32_in_cudnn_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """By PyTorch's default nn.LSTM multiplies in TF32 on GPUs: not where an asset is trained or judged in fp32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen, plain = set(), LstmMtl.forward

    def forward(model: LstmMtl, *args: Any) -> Any:
        seen.add((model.training and torch.is_grad_enabled(), *precision_on_gpus()))
        return plain(model, *args)

    monkeypatch.setattr(LstmMtl, "forward", forward)
    (member,) = make_members(1, *CARD, "training.epochs=1")
    fit_asset(member.data, member.config)
    assert seen == {(True, "highest", False), (False, "highest", False)}
    assert torch.backends.cudnn.allow_tf32


def test_gpu_libraries_are_asked_for_one_order_of_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything runs there; what somebody has set already is kept, and a CPU asks for nothing."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    fix_order_of_sums(torch.device("cpu"))
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    fix_order_of_sums(torch.device("cuda"))
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    fix_order_of_sums(torch.device("cuda"))
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


@bf16
def test_bf16_trains_float32_weights_close_to_float32s() -> None:
    """Both engines: weights and stored losses are float32's, and near to those of a float32 training."""
    (plain,) = make_members(1, *CARD, "training.epochs=4", lengths=(460,))
    (low,) = make_members(1, *CARD, "training.epochs=4", "training.precision=bf16", lengths=(460,))
    expected = fit_asset(plain.data, plain.config)
    (stacked,) = fit_stack([low])
    for fit in (fit_asset(low.data, low.config), stacked):
        assert isinstance(fit, Fit)
        assert {tensor.dtype for tensor in fit.model.state_dict().values()} == {torch.float32}
        assert fit.val_loss == pytest.approx(expected.val_loss, rel=0.01)
        for name, tensor in expected.model.state_dict().items():
            found = fit.model.state_dict()[name]
            assert not torch.equal(found, tensor)
            torch.testing.assert_close(found, tensor, atol=0.01, rtol=0)


@bf16
def test_what_is_stored_is_judged_in_float32() -> None:
    """The validation loss that a bf16 fit is chosen by is that of its weights in float32."""
    (low,) = make_members(1, *CARD, "training.epochs=2", "training.precision=bf16", lengths=(460,))
    fit = fit_asset(low.data, low.config)
    rows, starts = torch.from_numpy(low.data.features), torch.from_numpy(low.data.val.ends - 31)
    outputs = predict(fit.model, rows, starts, 32)
    target = torch.from_numpy(fit.return_target.encode(low.data.val.future_return)).float()
    log_p = torch.log_softmax(outputs.logits, 1).gather(1, torch.from_numpy(low.data.val.action)[:, None])[:, 0]
    focal = (-log_p * (1 - log_p.exp()) ** 3).mean()
    loss = 20 * focal + 50 * (outputs.returns - target).square().mean()
    assert fit.val_loss == pytest.approx(float(loss), rel=1e-6)
    assert min(line.val_loss for line in fit.history) == fit.val_loss


def test_models_of_a_stack_must_agree_in_shape() -> None:
    """Another batch size is refused, naming both assets."""
    members = [*make_members(1, *CARD), *make_members(1, *CARD, "training.batch_size=64", first=1)]
    with pytest.raises(ConfigError, match=r"TST1 has training\.batch_size 64, TST0 has 128"):
        fit_stack(members)
