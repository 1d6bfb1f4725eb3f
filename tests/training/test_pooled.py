"""One model over all assets: the same bits for any number of processes, whenever it is interrupted."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from sklearn import metrics as sk

from b3dist.config import Config
from b3dist.data.lake import Lake
from b3dist.data.pooled import PooledData, load_pooled
from b3dist.errors import ConfigError, TrainingError
from b3dist.model.losses import MultiTaskLoss
from b3dist.recipes import pooled
from b3dist.training.bundle import FILES, read_bundle
from b3dist.training.pooled import PooledFitting, Workers
from b3dist.training.pooled_bundle import PooledWriter, evaluate_pooled, judged, read_predictions
from b3dist.training.sampling import draw_epoch
from b3dist.training.trainer import EpochRecord

CONFIG = pooled().with_overrides(["training.epochs=3", "training.batch_size=96", "training.micro_batch=32"])

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def data(small_lake: Path) -> PooledData:
    lake = Lake(small_lake)
    return load_pooled(lake, lake.tickers()["ticker"], CONFIG.data)


@pytest.fixture(scope="module")
def alone(data: PooledData) -> dict[str, Any]:
    """What one process ends with."""
    fitting = PooledFitting(data, CONFIG)
    for _ in fitting.epochs():
        pass
    return fitting.state()


def with_seed(seed: int) -> Config:
    return dataclasses.replace(CONFIG, seed=seed)


def train_in_group(rank: int, size: int, folder: str, lake: str) -> None:
    """A process of a gloo group: trains with three seeds, and leaves each one's state."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    opened = Lake(lake)
    data = load_pooled(opened, opened.tickers()["ticker"], CONFIG.data)
    for seed in SEEDS:
        fitting = PooledFitting(data, with_seed(seed))
        for _ in fitting.epochs():
            pass
        torch.save(fitting.state(), Path(folder) / f"{seed}-{rank}.pt")
    torch.distributed.destroy_process_group()


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Two states, to the bit."""
    assert one["history"] == other["history"]
    assert (one["best_epoch"], one["best_loss"]) == (other["best_epoch"], other["best_loss"])
    for name in ("weights", "best_weights"):
        assert torch.equal(one[name], other[name])
    for name in ("mean", "square"):
        assert torch.equal(one["optimizer"][name], other["optimizer"][name])


@pytest.mark.parametrize("size", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_any_number_of_processes_gives_the_same_bits(
    small_lake: Path, data: PooledData, tmp_path: Path, size: int
) -> None:
    """Weights, moments and every epoch's losses of two and three gloo processes equal one's, for three seeds."""
    torch.multiprocessing.spawn(train_in_group, args=(size, str(tmp_path), str(small_lake)), nprocs=size)
    losses = set()
    for seed in SEEDS:
        fitting = PooledFitting(data, with_seed(seed))
        losses |= {record.val_loss for record in fitting.epochs()}
        for rank in range(size):
            assert_same(torch.load(tmp_path / f"{seed}-{rank}.pt", weights_only=True), fitting.state())
    assert len(losses) == 3 * len(SEEDS), "the seeds are not the same training"


@pytest.mark.parametrize("after", [1, 2])
def test_restored_training_goes_on_to_the_same_bits(data: PooledData, alone: dict[str, Any], after: int) -> None:
    """A checkpoint of any epoch, written and read back, leads where the unbroken training leads."""
    first = PooledFitting(data, CONFIG)
    for record in first.epochs():
        if record.epoch == after:
            break
    file = io.BytesIO()
    torch.save(first.state(), file)
    file.seek(0)
    second = PooledFitting(data, CONFIG)
    second.restore(torch.load(file, weights_only=True))
    assert [record.epoch for record in second.epochs()] == list(range(after + 1, 4))
    assert_same(second.state(), alone)


def test_restored_training_keeps_counting_patience(data: PooledData) -> None:
    """Patience and the learning rate's schedule go on where they were, not from the start."""
    config = CONFIG.with_overrides(["training.patience=2", "training.scheduler_patience=0", "training.epochs=9"])
    whole = PooledFitting(data, config)
    rates = [record.learning_rate for record in whole.epochs()]
    assert len(rates) == 3  # the first epoch counts as better than nothing, two more do not reach min_delta = 100
    part = PooledFitting(data, config)
    next(part.epochs())
    rest = PooledFitting(data, config)
    rest.restore(part.state())
    assert [record.learning_rate for record in rest.epochs()] == rates[1:]


def test_step_equals_plain_adam_on_the_whole_batch(data: PooledData) -> None:
    """Micro-batches add up to the gradient of the global batch's mean loss; torch's own Adam then gives the weights."""
    config = CONFIG.with_overrides(["model.dropout=0", "training.epochs=1"])
    fitting = PooledFitting(data, config)
    model, part = fitting.model, fitting.parts["train"]
    reference = type(model)(data.rows.shape[1], config.model)
    reference.load_state_dict({name: value.clone() for name, value in model.state_dict().items()})
    drawn = draw_epoch(fitting.sampling, config.training.sampler, fitting._generator(1))
    next(fitting.epochs())
    optimizer = torch.optim.Adam(reference.parameters(), lr=1e-3, weight_decay=1e-4)
    loss = MultiTaskLoss(config.loss)
    assert fitting.importance is not None
    for batch in torch.split(drawn, 96):
        logits, returns = reference(fitting.rows[part.starts[batch][:, None] + fitting.offsets])
        value = loss(
            logits,
            returns,
            action=part.action[batch],
            target=part.target[batch],
            return_weights=fitting.importance[batch],
        )
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        optimizer.step()
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, atol=2e-5, rtol=0)


def test_balanced_sampler_draws_classes_alike_and_resumes_alike(data: PooledData) -> None:
    """Over an epoch every class present is drawn as often; an epoch's draw depends on seed and epoch alone."""
    fitting = PooledFitting(data, CONFIG)
    drawn = draw_epoch(fitting.sampling, "balanced", fitting._generator(2))
    again = draw_epoch(fitting.sampling, "balanced", PooledFitting(data, CONFIG)._generator(2))
    assert torch.equal(drawn, again)
    counts = torch.bincount(fitting.parts["train"].action[drawn], minlength=3)
    present = torch.bincount(fitting.parts["train"].action, minlength=3) > 0
    expected = len(drawn) / int(present.sum())
    assert ((counts[present] - expected).abs() < 5 * expected**0.5).all()
    other = dataclasses.replace(CONFIG, seed=1)
    assert not torch.equal(drawn, draw_epoch(fitting.sampling, "balanced", PooledFitting(data, other)._generator(2)))


def test_more_workers_than_micro_batches_are_refused(data: PooledData) -> None:
    """A worker without a share would only wait."""
    workers = Workers()
    workers.size = 4
    with pytest.raises(ConfigError, match="only 3 micro-batches of 32"):
        PooledFitting(data, CONFIG, workers=workers)


def test_divergence_is_said_with_the_epoch(data: PooledData) -> None:
    """A loss that is no number ends the training at once."""
    with pytest.raises(TrainingError, match="diverged at epoch 1"):
        list(PooledFitting(data, CONFIG.with_overrides(["loss.return_weight=1e38"])).epochs())


@pytest.fixture(scope="module")
def written(data: PooledData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model's bundles."""
    folder = tmp_path_factory.mktemp("pooled")
    (folder / "assets").mkdir()
    config = dataclasses.replace(CONFIG, data=data.config)
    fitting = PooledFitting(data, config)
    for _ in fitting.epochs():
        pass
    writer = PooledWriter(fitting, config, lake_manifest_hash="lake")
    tickers = []
    for number, asset in enumerate(data.assets):
        if judged(asset) is None:
            writer.write_asset(number, folder / "assets")
            tickers.append(asset.ticker)
    writer.write_model(folder / "pooled", read_predictions(folder / "assets", tickers))
    return folder


def test_every_asset_gets_a_bundle_with_the_same_weights_and_its_own_scale(data: PooledData, written: Path) -> None:
    """A reader of bundles needs to know nothing new, and recomputes every stored prediction."""
    digests = set()
    for asset in data.assets:
        folder = written / "assets" / asset.ticker
        assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
        bundle = read_bundle(folder)
        digests.add(bundle.facts["model_sha256"])
        assert bundle.facts["source"] == "pooled"
        assert bundle.config.data.test_from == data.config.test_from
        np.testing.assert_array_equal(bundle.scaler.mean, asset.scaler.mean)
        stored = pd.read_parquet(folder / "predictions.parquet")
        ends = np.concatenate([asset.val.ends, asset.test.ends])
        windows = torch.from_numpy(asset.features[ends[:, None] - np.arange(31, -1, -1)])
        with torch.inference_mode():
            _, returns = bundle.model(windows)
        np.testing.assert_allclose(
            stored["return_pred"], bundle.return_target.decode(returns.double()).numpy(), atol=1e-7
        )
    assert len(digests) == 1
    assert read_bundle(written / "pooled").facts["model_sha256"] in digests


def test_overall_metrics_agree_with_scikit_learn(written: Path) -> None:
    """Over all assets' windows; and the mean over assets is the mean of the bundles' own numbers."""
    metrics = json.loads((written / "pooled" / "metrics.json").read_text())
    table = pd.read_parquet(written / "pooled" / "predictions.parquet")
    for name in ("val", "test"):
        part = table[table["split"] == name]
        assert metrics[name]["num_windows"] == len(part)
        assert metrics[name]["accuracy"] == pytest.approx(sk.accuracy_score(part["y_action"], part["action"]))
        expected = np.corrcoef(part["y_return"], part["return_pred"])[0, 1]
        assert metrics[name]["return"]["ic"] == pytest.approx(expected, abs=1e-9)
        each = [json.loads(path.read_text())[name]["return"]["ic"] for path in written.glob("assets/*/metrics.json")]
        assert metrics[name]["mean_over_assets"]["ic"] == pytest.approx(np.mean(each), abs=1e-9)


def test_losses_of_an_asset_are_over_its_own_windows(data: PooledData, written: Path) -> None:
    """Weighted by windows, the assets' validation losses add up to the model's."""
    losses = [json.loads((written / "assets" / a.ticker / "metrics.json").read_text())["val_loss"] for a in data.assets]
    total = np.average(losses, weights=[len(asset.val) for asset in data.assets])
    metrics = json.loads((written / "pooled" / "metrics.json").read_text())
    assert total == pytest.approx(metrics["val_loss"], rel=1e-5)
    history = pd.read_csv(written / "pooled" / "history.csv")
    assert list(history.columns) == [field.name for field in dataclasses.fields(EpochRecord)]
    assert metrics["val_loss"] == pytest.approx(history["val_loss"].min())


def test_evidence_of_one_session_counts_once() -> None:
    """Twenty copies of an asset are no more evidence of skill than the asset itself."""
    import pyarrow as pa

    rng = np.random.default_rng(3)
    size = 300
    truth = rng.normal(0, 0.02, size)
    one = pa.table(
        {
            "ticker": ["A"] * size,
            "session": pa.array(np.arange(size).astype("datetime64[D]")),
            "split": ["test"] * size,
            "close": np.full(size, 10.0),
            "future_close": 10.0 * (1 + truth),
            "y_action": np.full(size, 2),
            "y_return": truth,
            "action": np.full(size, 2),
            "return_pred": 0.1 * truth + rng.normal(0, 0.005, size),
            "spans_cash_ex_date": np.zeros(size, dtype=bool),
        }
    )
    copies = pa.concat_tables([one.set_column(0, "ticker", pa.array([f"A{number}"] * size)) for number in range(20)])
    single, many = (evaluate_pooled(table, 2)["test"]["skill"]["p_value"] for table in (one, copies))
    assert single == pytest.approx(many, rel=1e-9)
