"""Free masses: the nonparametric maximum-likelihood estimate of a Gaussian location mixture.

NPMLE: Kiefer and Wolfowitz (1956), Lindsay (1983). Which of two solvers runs is decided here.
"""

from threadpoolctl import threadpool_limits

from geco_theory.free_energy.data import StandardData
from geco_theory.free_energy.mixture import Mixture
from geco_theory.free_energy.solution import Solution
from geco_theory.npmle.factored import solve_factored
from geco_theory.npmle.matrix_free import solve_matrix_free


def solve_free(
    data: StandardData,
    temperature: float,
    start: Mixture,
    *,
    tolerance: float = 1e-9,
    memory: float = 1024.0,
    max_rounds: int = 25,
    workers: int = 1,
) -> Solution:
    """Minimise the free energy over all distributions of decoder values.

    Args:
        data: The data.
        temperature: T, in standard units.
        start: Any mixture to begin from; the answer does not depend on it.
        tolerance: The certificate ln S that must be reached.
        memory: MiB for the matrices of a Newton step. Where they do not fit, steps by conjugate
            gradients are used and the certificate starts from a part of the data (`matrix_free`).
        max_rounds: Rounds of Newton steps and births before giving up.
        workers: Threads, where Newton steps do not fit.
    """
    if not fits(data, start.size, memory):
        return solve_matrix_free(data, temperature, start, tolerance, memory, workers)
    # many small products: on several threads they take up to three times as long as on one
    with threadpool_limits(1, user_api="blas"):
        return solve_factored(data, temperature, start, tolerance, max_rounds)


def fits(data: StandardData, values: int, memory: float) -> bool:
    """Whether the matrices of a Newton step fit into `memory` MiB.

    Two n x n matrices, in single and in double precision, and four n x k matrices.
    """
    n, r = data.rows.shape
    needed = 20 * n * n + 32 * n * values + 4 * values * r * r
    return bool(needed <= memory * 2**20)
