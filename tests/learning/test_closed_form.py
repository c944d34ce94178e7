"""Every algorithm against its formula, written a second time in NumPy float64, on noisy quadratics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from pppml_fast.learning import (
    Algorithm,
    ServerOptimizer,
    ServerState,
    fedavg,
    fedprox,
    local,
    per_fedavg,
    personalize,
)

ALPHA, BETA, MU = 0.3, 0.2, 0.4
STEPS, ROUNDS = 4, 3
IDENTITY = np.eye(8)

ALGORITHMS: dict[str, Algorithm] = {
    "fedavg": fedavg(BETA, STEPS),
    "fedprox": fedprox(BETA, STEPS, MU),
    "per_fedavg_fo": per_fedavg("fo", ALPHA, BETA, STEPS),
    "per_fedavg_hf": per_fedavg("hf", ALPHA, BETA, STEPS),
    "per_fedavg_exact": per_fedavg("exact", ALPHA, BETA, STEPS),
}


def slope(draw: tuple[Any, Any], w: Any) -> Any:
    return draw[0] @ (w - draw[1])


def oracle_step(name: str, w: Any, anchor: Any, draws: Iterator[Any]) -> Any:
    """One local step as the papers write it."""
    d = next(draws)
    if name in ("fedavg", "local"):
        return w - BETA * slope(d, w)
    if name == "fedprox":
        return w - BETA * (slope(d, w) + MU * (w - anchor))
    v = slope(next(draws), w - ALPHA * slope(d, w))
    if name == "per_fedavg_fo":
        return w - BETA * v
    return w - BETA * (IDENTITY - ALPHA * next(draws)[0]) @ v


def oracle_client(name: str, w: Any, draws: Iterator[Any], steps: int = STEPS) -> Any:
    anchor = w
    for _ in range(steps):
        w = oracle_step(name, w, anchor, draws)
    return w


def run_rounds(world: Any, algorithm: Algorithm, rounds: int) -> ServerState:
    state = algorithm.init(world.start, {})
    for _ in range(rounds):
        deltas = [algorithm.client(state, world.objective, party).delta for party in world.parties]
        state = algorithm.apply(state, world.mean(deltas))
    return state


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 5e-5)])
def test_federation_of_noisy_quadratics_follows_the_oracle(
    quadratic: Callable[..., Any], name: str, dtype: torch.dtype, tolerance: float
) -> None:
    world = quadratic(dtype)
    state = run_rounds(world, ALGORITHMS[name], ROUNDS)
    logs = [iter(party.log) for party in world.parties]
    w = world.vector(world.start)
    for _ in range(ROUNDS):
        ends = [oracle_client(name, w, log) for log in logs]
        w = sum(p * end for p, end in zip(world.weights, ends, strict=True))
    assert all(next(log, None) is None for log in logs), "every batch drawn is one of the formula"
    np.testing.assert_allclose(world.vector(state.params), w, rtol=0, atol=tolerance)
    assert state.round == ROUNDS
    assert all(tensor.dtype == dtype for tensor in state.params.values())


def test_local_training_keeps_a_state_per_party(quadratic: Callable[..., Any]) -> None:
    world, algorithm = quadratic(), local(BETA, STEPS)
    assert not algorithm.federated
    ends = []
    for party in world.parties:
        state = algorithm.init(world.start, {})
        for _ in range(ROUNDS):
            update = algorithm.client(state, world.objective, party)
            state = algorithm.apply(state, update.delta, update.buffers)
        expected = oracle_client("local", world.vector(world.start), iter(party.log), STEPS * ROUNDS)
        np.testing.assert_allclose(world.vector(state.params), expected, atol=1e-12)
        ends.append(expected)
    assert np.abs(ends[0] - ends[1]).max() > 0.1


def test_personalize_is_plain_gradient_descent(quadratic: Callable[..., Any]) -> None:
    world = quadratic()
    party = world.parties[1]
    params, buffers = personalize(world.objective, world.start, {}, party, steps=6, lr=BETA)
    expected = oracle_client("fedavg", world.vector(world.start), iter(party.log), 6)
    np.testing.assert_allclose(world.vector(params), expected, atol=1e-12)
    assert buffers == {}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_steps_without_noise_are_a_matrix_power(quadratic: Callable[..., Any], name: str) -> None:
    """With constant A and c a round is w - c = T^steps (w0 - c) (and a geometric sum for FedProx)."""
    world = quadratic(noise=0.0)
    party = world.parties[0]
    a, c, w0 = party.curvature, party.center, world.vector(world.start)
    inner = IDENTITY - ALPHA * a
    matrix = {
        "fedavg": IDENTITY - BETA * a,
        "fedprox": IDENTITY - BETA * (a + MU * IDENTITY),
        "per_fedavg_fo": IDENTITY - BETA * a @ inner,
        "per_fedavg_hf": IDENTITY - BETA * inner @ a @ inner,
        "per_fedavg_exact": IDENTITY - BETA * inner @ a @ inner,
    }[name]
    # FedProx contracts towards the minimum of its own regularised function.
    goal = np.linalg.solve(a + MU * IDENTITY, a @ c + MU * w0) if name == "fedprox" else c
    expected = goal + np.linalg.matrix_power(matrix, STEPS) @ (w0 - goal)
    algorithm = ALGORITHMS[name]
    update = algorithm.client(algorithm.init(world.start, {}), world.objective, party)
    np.testing.assert_allclose(w0 + world.vector(update.delta), expected, atol=1e-10)


def fixed_point(world: Any, name: str) -> Any:
    """Where the mean of the parties' one-step updates vanishes: sum_i p_i K_i (w - c_i) = 0."""
    left, right = np.zeros((8, 8)), np.zeros(8)
    for p, party in zip(world.weights, world.parties, strict=True):
        inner = IDENTITY - ALPHA * party.curvature
        kernel = {
            "fedavg": party.curvature,
            "per_fedavg_fo": party.curvature @ inner,
            "per_fedavg_hf": inner @ party.curvature @ inner,
            "per_fedavg_exact": inner @ party.curvature @ inner,
        }[name]
        left, right = left + p * kernel, right + p * kernel @ party.center
    return np.linalg.solve(left, right)


def meta_value(world: Any, w: Any) -> float:
    """F(w) = sum_i p_i f_i(w - alpha grad f_i(w)), the objective of the paper."""
    total = 0.0
    for p, party in zip(world.weights, world.parties, strict=True):
        adapted = w - ALPHA * party.curvature @ (w - party.center)
        total += p * 0.5 * (adapted - party.center) @ party.curvature @ (adapted - party.center)
    return total


@pytest.mark.parametrize("name", ["fedavg", "per_fedavg_fo", "per_fedavg_hf", "per_fedavg_exact"])
def test_federation_converges_to_the_point_the_theory_names(quadratic: Callable[..., Any], name: str) -> None:
    world = quadratic(noise=0.0)
    algorithm = fedavg(0.5, 1) if name == "fedavg" else per_fedavg(name[11:], ALPHA, 0.5, 1)  # type: ignore[arg-type]
    state = run_rounds(world, algorithm, 300)
    np.testing.assert_allclose(world.vector(state.params), fixed_point(world, name), atol=1e-8)


def test_the_variants_seek_different_points_and_exact_minimises_the_meta_objective(
    quadratic: Callable[..., Any],
) -> None:
    world = quadratic(noise=0.0)
    points = {name: fixed_point(world, name) for name in ("fedavg", "per_fedavg_fo", "per_fedavg_exact")}
    values = {name: meta_value(world, point) for name, point in points.items()}
    assert values["per_fedavg_exact"] < values["per_fedavg_fo"] - 1e-4
    assert values["per_fedavg_exact"] < values["fedavg"] - 1e-4
    assert np.abs(points["per_fedavg_fo"] - points["fedavg"]).max() > 1e-2


def test_one_step_variants_differ_by_exactly_the_hessian_term(quadratic: Callable[..., Any]) -> None:
    ends = {}
    for variant in ("fo", "hf", "exact"):
        world = quadratic()  # the same draws for each variant
        algorithm = per_fedavg(variant, ALPHA, BETA, 1)
        update = algorithm.client(algorithm.init(world.start, {}), world.objective, world.parties[2])
        ends[variant] = world.vector(update.delta)
    d, d1, d2 = world.parties[2].log
    w = world.vector(world.start)
    term = BETA * ALPHA * d2[0] @ slope(d1, w - ALPHA * slope(d, w))
    assert np.abs(term).max() > 1e-2
    np.testing.assert_allclose(ends["exact"] - ends["fo"], term, atol=1e-12)
    np.testing.assert_allclose(ends["hf"], ends["exact"], atol=1e-11)


def test_server_momentum_and_step_size_follow_their_recurrence(quadratic: Callable[..., Any]) -> None:
    world = quadratic()
    server = ServerOptimizer(lr=0.7, momentum=0.6)
    state = run_rounds(world, per_fedavg("exact", ALPHA, BETA, STEPS, server=server), ROUNDS)
    logs = [iter(party.log) for party in world.parties]
    w, velocity = world.vector(world.start), np.zeros(8)
    for _ in range(ROUNDS):
        ends = [oracle_client("per_fedavg_exact", w, log) for log in logs]
        mean = sum(p * (end - w) for p, end in zip(world.weights, ends, strict=True))
        velocity = 0.6 * velocity + mean
        w = w + 0.7 * velocity
    np.testing.assert_allclose(world.vector(state.params), w, atol=1e-10)
    np.testing.assert_allclose(world.vector(state.optimizer), velocity, atol=1e-10)


def test_reported_loss_is_the_mean_of_what_is_lowered(quadratic: Callable[..., Any]) -> None:
    world = quadratic()
    algorithm = per_fedavg("exact", ALPHA, BETA, 2)
    update = algorithm.client(algorithm.init(world.start, {}), world.objective, world.parties[0])
    w, losses, draws = world.vector(world.start), [], iter(world.parties[0].log)
    for _ in range(2):
        d, d1, d2 = next(draws), next(draws), next(draws)
        adapted = w - ALPHA * slope(d, w)
        losses.append(0.5 * (adapted - d1[1]) @ slope(d1, adapted))
        w = w - BETA * (IDENTITY - ALPHA * d2[0]) @ slope(d1, adapted)
    assert update.loss == pytest.approx(np.mean(losses), rel=1e-12)
