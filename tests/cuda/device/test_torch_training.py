"""Training on a GPU with PyTorch: what is computed there, what leaves it, and sums that are the host's to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pppml_fast import CkksParams, Layout, cuda  # noqa: E402
from pppml_fast.learning import (  # noqa: E402
    AVERAGE,
    Objective,
    ServerState,
    TensorBatches,
    buffers_of,
    from_vector,
    layout_of,
    merge_statistics,
    outgoing,
    parameters_of,
    per_fedavg,
    seeded,
    shared_statistics,
    split_mean,
    to_vector,
)

pytestmark = [
    pytest.mark.real_device,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this PyTorch sees no GPU"),
]
GPU = "cuda:0"
NAMES = ("north", "east", "south")


def network(seed: int = 0, dropout: float = 0.0) -> torch.nn.Module:
    """Drawn on the processor, as networks of experiments are."""
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1),
        torch.nn.BatchNorm2d(16),
        torch.nn.Tanh(),
        torch.nn.Dropout(dropout),
        torch.nn.Conv2d(16, 16, 3, padding=1),
        torch.nn.Tanh(),
        torch.nn.Flatten(),
        torch.nn.Linear(16 * 8 * 8, 4),
    )


def images(seed: int = 0, count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 8, 8, generator=generator), torch.randint(4, (count,), generator=generator)


def objective(module: torch.nn.Module) -> Objective:
    return Objective(module, torch.nn.CrossEntropyLoss())


def initial(module: torch.nn.Module) -> ServerState:
    return AVERAGE.init(parameters_of(module), buffers_of(module))


def stepped(state: ServerState, layout: Layout, mean: Any) -> ServerState:
    """The next state from a mean, wherever either lies."""
    params, statistics = split_mean(state, from_vector(layout, mean))
    return AVERAGE.apply(state, params, merge_statistics(state.buffers, statistics))


def relative(found: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> float:
    apart, whole = (
        torch.stack([part.double().cpu().square().sum() for part in parts]).sum().sqrt()
        for parts in ([found[name].double().cpu() - exact[name] for name in exact], list(exact.values()))
    )
    return float(apart / whole)


# --- what a GPU computes ----------------------------------------------------------------------------------------------


def test_the_hessian_free_product_is_not_lost_in_short_mantissas() -> None:
    """Of this product float32 loses 3e-5, convolutions in TensorFloat-32 would lose 3e-2."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True  # PyTorch's default, whatever tests before this one left
    try:
        module, batch = network(), images()
        double, wide = network().double(), (batch[0].double(), batch[1])
        params = parameters_of(double)
        vector = objective(double).gradient(params, buffers_of(double), wide).gradient
        exact = objective(double).hessian_vector(params, buffers_of(double), wide, vector)
        module = module.to(GPU)
        here, direction = parameters_of(module), {name: t.float().to(GPU) for name, t in vector.items()}
        for product in (Objective.hessian_vector, Objective.hessian_vector_difference):
            found = product(objective(module), here, buffers_of(module), batch, direction)
            assert all(tensor.is_cuda for tensor in found.values())
            assert relative(found, exact) < 2e-3, product.__name__
        assert torch.backends.cudnn.allow_tf32 is True, "the program's own settings come back"
    finally:
        torch.backends.cudnn.allow_tf32 = before


def test_a_step_repeats_its_bits_dropout_included() -> None:
    module, batch = network(dropout=0.4).to(GPU), images()
    state, form = initial(module), objective(module)
    torch.manual_seed(5)
    kept = torch.cuda.get_rng_state(GPU)
    found = []
    for _ in range(2):
        with seeded(17, GPU):
            found.append(form.gradient(state.params, state.buffers, batch))
    assert found[0].loss == found[1].loss
    assert all(torch.equal(found[0].gradient[name], found[1].gradient[name]) for name in state.params)
    assert torch.equal(torch.cuda.get_rng_state(GPU), kept), "the program's own draws go on where they were"
    with seeded(18, GPU):
        other = form.gradient(state.params, state.buffers, batch)
    assert other.loss != found[0].loss


def test_a_model_has_the_same_bits_wherever_a_mean_is_applied() -> None:
    module = network()
    host, device = initial(module), initial(module.to(GPU))
    assert {name: t.tolist() for name, t in host.state_dict().items()} == {
        name: t.tolist() for name, t in device.state_dict().items()
    }
    layout = layout_of({**host.params, **shared_statistics(module, host.buffers, "shared")})
    mean = np.random.default_rng(1).normal(0, 1e-2, layout.size).astype(np.float32)
    mean[::7] *= np.float32(1e-30)
    after = [stepped(host, layout, mean), stepped(device, layout, cuda.DeviceArray.from_host(mean))]
    assert all(t.is_cuda for t in after[1].params.values())
    first, second = (state.state_dict() for state in after)
    assert all(
        second[name].device.type == "cpu" and torch.equal(tensor, second[name]) for name, tensor in first.items()
    )
    again = device.restore(first)
    assert again.round == 1 and all(t.device == torch.device(GPU) for t in again.params.values())
    assert all(torch.equal(again.params[name], t) for name, t in after[1].params.items())


def test_updates_are_the_tensors_themselves() -> None:
    module = network().to(GPU)
    params = parameters_of(module)
    layout = layout_of(params)
    update = to_vector(layout, params)
    assert [part.data_ptr() for part in update] == [tensor.data_ptr() for tensor in params.values()]
    flat = cuda.DeviceArray.from_host(np.arange(layout.size, dtype=np.float32))
    named = from_vector(layout, flat)
    assert next(iter(named.values())).data_ptr() == flat.address
    assert torch.equal(
        torch.cat([tensor.reshape(-1) for tensor in named.values()]).cpu(), torch.arange(layout.size) * 1.0
    )


# --- a federation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", ["ring", "star"])
def test_a_small_federation_trains_on_the_sums_that_a_host_takes(topology: str) -> None:
    """Per-FedAvg with shared statistics, on a stream of its own: sum for sum that of the updates' copies."""
    pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mlkem")
    from pppml_fast.aggregation import open_federation

    module = network(dropout=0.2)
    on_host, on_device = initial(module), initial(module.to(GPU))
    layout = layout_of({**on_device.params, **shared_statistics(module, on_device.buffers, "shared")})
    algorithm, form = per_fedavg("hf", 0.05, 0.05, 2), objective(module)
    sources = {
        name: TensorBatches(*images(number), batch_size=4, seed=number) for number, name in enumerate(NAMES, start=1)
    }
    params = CkksParams.for_sum(parties=3, clip=1.0, bits=16, keys="collective", weights="public")
    common: dict[str, Any] = {"params": params, "layout": layout, "topology": topology}
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with (
        open_federation(NAMES, **common) as theirs,
        open_federation(NAMES, **common) as ours,
        torch.cuda.stream(stream),
    ):
        for number in range(2):
            with seeded(number, GPU):
                trained = {name: algorithm.client(on_device, form, source) for name, source in sources.items()}
            updates = {name: to_vector(layout, outgoing(on_device, update)) for name, update in trained.items()}
            assert all(part.is_cuda for update in updates.values() for part in update)
            copies = {name: [part.cpu().numpy() for part in update] for name, update in updates.items()}
            found, expected = ours.aggregate(updates, round=number), theirs.aggregate(copies, round=number)
            assert isinstance(found.vector, cuda.DeviceArray)
            assert found.vector.to_host().tobytes() == expected.vector.tobytes()
            assert found.costs.clipped == expected.costs.clipped
            on_device, on_host = stepped(on_device, layout, found.vector), stepped(on_host, layout, expected.vector)
            one, two = on_host.state_dict(), on_device.state_dict()
            assert all(torch.equal(one[name], two[name]) for name in one)
    assert on_device.round == 2


# --- experiments ------------------------------------------------------------------------------------------------------


def needs_experiments() -> None:
    for module in ("monai", "pydantic", "safetensors", "cryptography.hazmat.primitives.asymmetric.mlkem"):
        pytest.importorskip(module)


def test_a_round_of_the_demo(tmp_path: Path) -> None:
    needs_experiments()
    from pppml_fast.experiment import build_config
    from pppml_fast.experiment.cards import load_model
    from pppml_fast.experiment.config_file import ready_table
    from pppml_fast.experiment.runner import run_experiment

    config = build_config(
        ready_table("demo"),
        [
            "device=cuda",
            "rounds=1",
            "gradients_per_round=4",
            "personal_steps=[0, 1]",
            "reported_steps=1",
            "board=['local', 'fedavg_ft', 'per_fedavg_hf']",
            "data.size=32",
            "data.cases_train=2",
            "data.cases_test=1",
        ],
    )
    result = run_experiment(config, tmp_path / "run", command="pppml demo --device cuda")
    summary = result.aggregation
    assert summary["identical_models"] is True and summary["max_difference_from_plain"] == 0
    assert result.provenance["machine"]["device"].startswith("cuda:0, ")
    scores = [dice for method in result.methods for one in method.scores[0].values() for dice in one.dice[1].values()]
    assert scores and all(0 <= dice <= 1 for dice in scores)
    models = [load_model(card) for card in (tmp_path / "run" / "models").rglob("*.toml")]
    assert models and all(tensor.device.type == "cpu" for model in models for tensor in model.params.values())
    moved = models[0].to(torch.device(GPU))
    assert all(p.is_cuda for p in moved.module().parameters())
    # The same command again finds everything done, on the device it was done on.
    again = run_experiment(config, tmp_path / "run", command="pppml demo --device cuda")
    assert again.provenance["models"] == result.provenance["models"]


def test_a_site_on_a_gpu_beside_sites_without_one(tmp_path: Path) -> None:
    needs_experiments()
    import played_torch  # noqa: F401  # puts tests/experiment within reach
    import tiny_study
    from site_rounds import DrivenSite, outcomes_of

    from pppml_fast.experiment import build_config
    from pppml_fast.experiment.study import prepare

    table = tiny_study.table(tiny_study.write_npz(tmp_path / "tiny.npz"))
    arguments = {**table["network"]["arguments"], "norm": "batch", "dropout": 0.1}
    table = {**table, "network": {**table["network"], "arguments": arguments}, "exclude": ["model.2*"]}
    studies = {device: prepare(build_config({**table, "device": device})) for device in ("cpu", "cuda")}
    sites = [
        DrivenSite(studies["cuda" if name == "east" else "cpu"], index, tmp_path / name, "per_fedavg_fo")
        for index, name in enumerate(studies["cpu"].party_names)
    ]
    assert len({site.training.states for site in sites}) == 1, "they start from the same bits"
    for number in range(2):
        results = {}
        for site in sites:
            site.training.train(number, 0)
            results[site.name] = site.handed_in(number)
        assert all(part.is_cuda for part in results["east"][0])
        outcomes = outcomes_of(studies["cpu"], results, number)
        assert outcomes["east"].mean is results["east"][0]
        assert len({site.training.commit(number, outcomes[site.name].mean) for site in sites}) == 1
        sites[1].restart()
    newest = sites[0].training.states[0]
    assert all(site.training.finished() and site.training.states[0] == newest for site in sites)
    assert len({site.training.export(newest) for site in sites}) == 1
    assert all(tensor.is_cuda for tensor in sites[1].training.personal.params.values())
    for site in sites:
        site.training.close()
