"""Round weights one input after the other, each making up for what those before it lost.

Source: Frantar et al., GPTQ, 2022 (after Hassibi, Optimal Brain Surgeon, 1993), with the inputs in
the order of their size.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from calib.rounding.weights import LEVELS
from model.arrays import Float32

# Added to the diagonal, as a share of its mean: a direction that photos hardly show must not let a
# weight run away.
_DAMPING = 0.01
# Columns rounded before their errors are spread over all later ones at once.
_BLOCK = 128


def round_together(
    weights: Float32, scales: Float32, moments: Float32, levels: int = LEVELS
) -> npt.NDArray[np.int8]:
    """The integers whose products with the inputs come closest to the weights' own.

    Args:
        weights: float32 [outputs, columns].
        scales: float32 [outputs], what a step stands for.
        moments: float32 [columns, columns], the mean of x xᵀ over inputs x.
        levels: magnitude of the largest code.

    Returns:
        int8 [outputs, columns], -levels to levels.
    """
    order = np.argsort(-np.diag(moments), kind="stable")
    spread = _spreading(moments[np.ix_(order, order)].astype(np.float64)).astype(np.float32)
    left = weights[:, order].astype(np.float32)
    integers = np.zeros(left.shape, np.int8)
    for start in range(0, left.shape[1], _BLOCK):
        end = min(start + _BLOCK, left.shape[1])
        errors = np.zeros((len(left), end - start), np.float32)
        for column in range(start, end):
            steps = np.clip(np.rint(left[:, column] / scales), -levels, levels)
            integers[:, column] = steps
            error = (left[:, column] - steps * scales) / spread[column, column]
            left[:, column:end] -= error[:, None] * spread[column, column:end]
            errors[:, column - start] = error
        left[:, end:] -= errors @ spread[start:end, end:]
    answer = np.empty_like(integers)
    answer[:, order] = integers
    return answer


def _spreading(moments: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Upper triangular U with Uᵀ U the inverse: row i says how input i's error is passed on."""
    mean = float(np.trace(moments)) / len(moments)
    if mean == 0.0:  # nothing but zeros was ever read: every rounding is as good
        return np.eye(len(moments))
    inverse = np.linalg.inv(moments + _DAMPING * mean * np.eye(len(moments)))
    # Rounding leaves it a little asymmetric, and the factorisation reads one half.
    lower = np.linalg.cholesky((inverse + inverse.T) / 2)
    return np.asarray(lower.T, np.float64)
