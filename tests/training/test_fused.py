"""A stack trains each of its models as if it were alone: equal to plain PyTorch, and untouched by its neighbours."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from b3dist.errors import TrainingError
from b3dist.training.fused import Execution, StackFitting, fit_stack
from b3dist.training.fused_data import StackMember
from b3dist.training.trainer import Fit, fit_asset
from tests.training.stacks import CARD, SMALL, config_of, make_asset, make_members, train_plainly, with_actions

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
    ),
]
LENGTHS = (300, 460, 390, 620)
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def assert_equals_plain(members: list[StackMember], epochs: int, device: str, dtype: torch.dtype) -> StackFitting:
    """Every weight of every model after some epochs is what plain PyTorch gets, within the tolerance."""
    fitting = StackFitting(members, device=torch.device(device), dtype=dtype)
    for _ in range(epochs):
        fitting.run_epoch()
    for slot, number in enumerate(fitting.order):
        plain = train_plainly(members[number], epochs, device=device, dtype=dtype)
        for name, tensor in plain.items():
            torch.testing.assert_close(fitting.weights[name][slot], tensor, atol=TOLERANCE[dtype], rtol=0)
    return fitting


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("lengths", [(330,), (330, 420, 250)], ids=["equal", "ragged"])
@pytest.mark.parametrize("num_models", [1, 3, 17])
def test_stack_equals_plain_trainings(
    num_models: int, lengths: tuple[int, ...], dtype: torch.dtype, device: str
) -> None:
    """K models, 20 steps and more: nn.LSTM, autograd, Adam and clip_grad_norm_ one by one give the same weights."""
    members = make_members(num_models, *SMALL, lengths=lengths)
    fitting = assert_equals_plain(members, 5, device, dtype)
    assert int(fitting.adam.steps.min()) >= 20


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_stack_equals_plain_trainings_at_the_cards_shapes(dtype: torch.dtype, device: str) -> None:
    """The same with 32 x 13 windows, 64 units and 128 windows a step, over 20 steps."""
    fitting = assert_equals_plain(make_members(2, *CARD, lengths=(460, 330)), 10, device, dtype)
    assert int(fitting.adam.steps.min()) >= 20


@pytest.mark.parametrize("device", DEVICES)
def test_every_model_has_its_own_hyperparameters(device: str) -> None:
    """Models that differ in every number of loss, optimiser, sampler and dropout share a stack."""
    sets = [
        ("loss.gamma=0",),
        ("loss.gamma=0.5", "training.learning_rate=1e-2"),
        ("loss.gamma=2", "loss.action_weight=3", "loss.return_weight=7"),
        ("training.weight_decay=0.1", "training.clip_norm=0.05"),
        ("training.sampler=shuffled", "model.dropout=0"),
        ("loss.class_weights=true", "loss.return_weighting=sampled", "seed=5"),
    ]
    members = []
    for overrides in sets:
        config = config_of(*SMALL, *overrides)
        members.append(StackMember(data=make_asset(config, rows=300), config=config))
    assert_equals_plain(members, 5, device, torch.float64)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kernels", ["plain", "triton"])
def test_graphs_replay_what_plain_steps_do(kernels: str) -> None:
    """Captured as CUDA graphs, with ragged lengths and compaction, the stack ends with the eager stack's weights."""
    from b3dist.model.triton_lstm import triton_kernels

    members = make_members(5, *CARD, "training.epochs=4", lengths=LENGTHS)
    short = members[0].config.with_overrides(["training.epochs=2"])
    members[0] = dataclasses.replace(members[0], config=short)
    with ThreadPoolExecutor(2) as pool:
        chosen = triton_kernels() if kernels == "triton" else None
        execution = Execution(pool=pool, kernels=chosen, graphs=True)
        graphed = fit_stack(members, device="cuda", execution=execution)
    for one, other in zip(graphed, fit_stack(members, device="cuda"), strict=True):
        assert isinstance(one, Fit)
        assert isinstance(other, Fit)
        for name, tensor in other.model.state_dict().items():
            torch.testing.assert_close(one.model.state_dict()[name], tensor, atol=1e-3, rtol=0)


def test_drawing_ahead_in_threads_changes_no_bit(alone: list[Fit]) -> None:
    """The next epoch drawn by a pool while this one is trained: the same windows and masks, also after compaction."""
    members = make_members(4, *CARD, "training.epochs=3", lengths=LENGTHS)
    short = members[0].config.with_overrides(["training.epochs=1"])
    members[0] = dataclasses.replace(members[0], config=short)
    with ThreadPoolExecutor(2) as pool:
        outcomes = fit_stack(members, execution=Execution(pool=pool))
    for number in (1, 2, 3):
        fit = outcomes[number]
        assert isinstance(fit, Fit)
        assert_same_bits(fit, alone[number])


@pytest.mark.parametrize("device", DEVICES)
def test_missing_classes(device: str) -> None:
    """Training parts without buys, without sells, and with holds only train like plain ones."""
    members = make_members(4, *SMALL, "loss.class_weights=true")
    some = [with_actions(member, classes) for member, classes in zip(members, [(2,), (0, 2), (1, 2)], strict=False)]
    assert_equals_plain([*some, members[3]], 5, device, torch.float64)


def fits_of(members: list[StackMember]) -> list[Fit]:
    """Fits of a stack none of whose models diverges."""
    fits = fit_stack(members)
    assert all(isinstance(fit, Fit) for fit in fits)
    return fits  # type: ignore[return-value]


def assert_same_bits(one: Fit, other: Fit) -> None:
    """Two fits agree in every bit of weights and history."""
    assert one.history == other.history
    assert (one.best_epoch, one.train_loss, one.val_loss) == (other.best_epoch, other.train_loss, other.val_loss)
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name]), name


@pytest.fixture(scope="module")
def alone() -> list[Fit]:
    """Four assets of different lengths at the card's shapes, each in a stack of its own."""
    return [fits_of([member])[0] for member in make_members(4, *CARD, "training.epochs=3", lengths=LENGTHS)]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1), (2, 0, 3)])
def test_make_up_of_a_pack_changes_no_bit(alone: list[Fit], order: tuple[int, ...]) -> None:
    """On a CPU, at the card's shapes, a model's bits are the same alone and in any company and place."""
    members = make_members(4, *CARD, "training.epochs=3", lengths=LENGTHS)
    for number, fit in zip(order, fits_of([members[number] for number in order]), strict=True):
        assert_same_bits(fit, alone[number])


def test_divergence_fails_one_model_and_touches_no_bit_of_the_others(alone: list[Fit]) -> None:
    """A learning rate that blows one model up is its TrainingError, naming asset and epoch; the rest never knows."""
    members = make_members(4, *CARD, "training.epochs=3", lengths=LENGTHS)
    exploding = members[1].config.with_overrides(["training.learning_rate=1e30", "training.clip_norm=1e30"])
    members[1] = dataclasses.replace(members[1], config=exploding)
    outcomes = fit_stack(members)
    error = outcomes[1]
    assert isinstance(error, TrainingError)
    assert "TST1 diverged at epoch 1" in error.message
    for number in (0, 2, 3):
        fit = outcomes[number]
        assert isinstance(fit, Fit)
        assert_same_bits(fit, alone[number])


def test_models_that_stop_leave_the_stack_and_the_others_go_on(alone: list[Fit]) -> None:
    """With 1, 3, 3 and 2 epochs the stack shrinks twice; what stays is bit-identical to training alone."""
    members = make_members(4, *CARD, "training.epochs=3", lengths=LENGTHS)
    for number, epochs in ((0, 1), (3, 2)):
        config = members[number].config.with_overrides([f"training.epochs={epochs}"])
        members[number] = dataclasses.replace(members[number], config=config)
    fitting = StackFitting(members, device=torch.device("cpu"), dtype=torch.float32)
    sizes = []
    outcomes = fitting.run(on_epoch=lambda _number, _record: sizes.append(len(fitting.order)))
    assert sizes == [4] * 4 + [3] * 3 + [2] * 2
    for number, epochs in enumerate((1, 3, 3, 2)):
        fit = outcomes[number]
        assert isinstance(fit, Fit)
        assert fit.history == alone[number].history[:epochs]
    for number in (1, 2):
        fit = outcomes[number]
        assert isinstance(fit, Fit)
        assert_same_bits(fit, alone[number])


@pytest.mark.parametrize("device", DEVICES)
def test_stack_stops_schedules_and_selects_like_the_single_engine(device: str) -> None:
    """Epochs run, learning rates, best epochs, losses and scores follow fit_asset's, whose schedule is torch's."""
    overrides = ("training.epochs=30", "training.min_delta=0", "training.patience=4", "training.scheduler_patience=1")
    members = make_members(5, *SMALL, *overrides, "training.learning_rate=3e-3", lengths=(300, 420))
    for member, fit in zip(members, fit_stack(members, device=device), strict=True):
        single = fit_asset(member.data, member.config)
        assert isinstance(fit, Fit)
        assert [line.learning_rate for line in fit.history] == [line.learning_rate for line in single.history]
        assert fit.best_epoch == single.best_epoch
        assert fit.train_loss == pytest.approx(single.train_loss, rel=1e-3)
        for line, expected in zip(fit.history, single.history, strict=True):
            assert dataclasses.asdict(line) == pytest.approx(dataclasses.asdict(expected), rel=1e-3)
        for name, tensor in single.model.state_dict().items():
            torch.testing.assert_close(fit.model.state_dict()[name], tensor, atol=1e-3, rtol=0)


def test_a_start_is_epoch_0_and_kept_if_no_epoch_is_better() -> None:
    """Given weights replace the drawn ones in one of two models; each comes out as the single engine's."""
    members = make_members(2, *CARD, "training.epochs=2")
    start = fits_of([dataclasses.replace(members[1], config=members[1].config.with_overrides(["training.epochs=6"]))])
    weights = start[0].model.state_dict()
    lowered = members[1].config.with_overrides(["training.learning_rate=0.1"])
    members[1] = dataclasses.replace(members[1], start=weights, config=lowered)
    for member, fit in zip(members, fits_of(members), strict=True):
        single = fit_asset(member.data, member.config, start=member.start)
        assert fit.best_epoch == single.best_epoch
        assert fit.val_loss == pytest.approx(single.val_loss, rel=1e-4)
        assert [line.val_loss for line in fit.history] == pytest.approx(
            [line.val_loss for line in single.history], rel=1e-2
        )
    assert fit.best_epoch == 0
    assert all(torch.equal(tensor, weights[name]) for name, tensor in fit.model.state_dict().items())
