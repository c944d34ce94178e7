"""Other libraries' NTT forms: any root, any number of primes, every backend."""

import numpy as np
import pytest
import reference

from pppml_fast import _native
from pppml_fast.errors import CiphertextError, ParameterError
from pppml_fast.interop.evaluation import EvaluationForm

# 20 to 60 bits; all have roots of unity for N = 4096.
PRIMES = (557057, 2147377153, 1099511480321, 1125899906826241, 1152921504606830593)


def polynomials(n: int, count: int) -> np.ndarray:
    generator = np.random.default_rng(n)
    return np.stack([[generator.integers(0, q, n, dtype=np.uint64) for q in PRIMES] for _ in range(count)])


@pytest.mark.parametrize("exponent", [1, 5, 8191, 77])
def test_forms_hold_the_values_at_the_powers_of_their_roots(exponent: int) -> None:
    n = 64
    roots = [pow(reference.least_root(n, q), exponent % (2 * n), q) for q in PRIMES]
    form, given = EvaluationForm(n, PRIMES, roots), polynomials(n, 3)
    values = form.from_coefficients(given)
    for p in range(3):
        for index, q in enumerate(PRIMES):
            assert (values[p, index] == reference.ntt(given[p, index], roots[index], q)).all()
    assert (form.to_coefficients(values) == given).all()
    own = EvaluationForm(n, PRIMES)
    assert (form.to_native(values) == own.from_coefficients(given)).all()
    assert (form.from_native(form.to_native(values)) == values).all()


def test_our_roots_are_the_least() -> None:
    assert EvaluationForm(64, PRIMES).roots == tuple(reference.least_root(64, q) for q in PRIMES)


def test_roots_may_differ_from_prime_to_prime() -> None:
    n = 64
    roots = [pow(reference.least_root(n, q), 2 * index + 1, q) for index, q in enumerate(PRIMES)]
    given = polynomials(n, 1)
    values = EvaluationForm(n, PRIMES, roots).from_coefficients(given)
    for index, q in enumerate(PRIMES):
        assert (values[0, index] == reference.ntt(given[0, index], roots[index], q)).all()


@pytest.mark.parametrize("backend", _native.supported_backends())
@pytest.mark.parametrize("n", [16, 4096])
def test_batches_are_the_rows_of_the_kernel_primitive(backend: str, n: int) -> None:
    transform, given = _native.Transform(n, list(PRIMES), backend), polynomials(n, 5)
    spectrum = transform.forward(given)
    for p in range(5):
        for index, q in enumerate(PRIMES):
            row = _native.primitives.ntt(q, n.bit_length() - 1, given[p, index], backend="scalar")
            assert (spectrum[p, index] == row).all()
    assert (transform.inverse(spectrum) == given).all()


@pytest.mark.parametrize("shape", [(5, 32), (4, 64), (64,), (5, 64, 2)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    values = np.zeros(shape, np.uint64)
    with pytest.raises(CiphertextError, match="this ring takes"):
        EvaluationForm(64, PRIMES).to_coefficients(values)
    with pytest.raises(_native.RequirementError, match="shape"):
        _native.Transform(64, list(PRIMES)).forward(values)


def test_wrong_dtypes_are_refused() -> None:
    with pytest.raises(CiphertextError, match="uint64"):
        EvaluationForm(64, PRIMES).from_coefficients(np.zeros((5, 64), np.int64))


@pytest.mark.parametrize("direction", ["to_coefficients", "from_coefficients"])
def test_a_residue_that_is_not_below_its_prime_is_refused(direction: str) -> None:
    values = np.zeros((2, 5, 64), np.uint64)
    values[1, 3, 63] = PRIMES[3]
    with pytest.raises(CiphertextError, match=f"{PRIMES[3]} is not below its prime"):
        getattr(EvaluationForm(64, PRIMES), direction)(values)


@pytest.mark.parametrize(
    ("n", "primes", "roots", "message"),
    [
        (48, PRIMES, None, "power of two"),
        (8, PRIMES, None, "power of two"),
        (64, (), None, "at least one prime"),
        (64, (2147483647,), None, "no negacyclic transform"),
        (64, (1125899906826243,), None, "not a prime"),
        (64, PRIMES, (1, 2), "2 roots of unity for 5 primes"),
        (64, (557057,), (1,), "no primitive root"),
        (64, (557057,), (557057,), "no primitive root"),
    ],
)
def test_impossible_forms_are_refused(n: int, primes: tuple, roots: tuple | None, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        EvaluationForm(n, primes, roots)
