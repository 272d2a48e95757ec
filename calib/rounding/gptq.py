"""GPTQ: round weights column by column, each column compensating the errors of those before it.

Source: Frantar et al., GPTQ, 2022 (after Hassibi, Optimal Brain Surgeon, 1993), with columns in
the order of their inputs' magnitude.
"""

from __future__ import annotations

import numpy as np

from model.arrays import Float32, Float64, Int8

# Added to the diagonal, as a fraction of its mean, so that inputs that hardly vary on the photos
# do not produce extreme weights.
_DAMPING = 0.01
# Columns rounded before their errors are spread over all later ones at once.
_BLOCK = 128


def gptq(weights: Float32, scales: Float32, hessian: Float32, levels: int = 127) -> Int8:
    """Codes whose products with the inputs come close to those of the weights.

    Args:
        weights: float32 [outputs, columns].
        scales: float32 [outputs].
        hessian: float32 [columns, columns], the mean of x xᵀ over inputs x.
        levels: magnitude of the largest code.

    Returns:
        int8 [outputs, columns], -levels to levels.
    """
    order = np.argsort(-np.diag(hessian), kind="stable")
    spread = _inverse_root(hessian[np.ix_(order, order)].astype(np.float64)).astype(np.float32)
    remaining = weights[:, order].astype(np.float32)
    ordered = np.zeros(remaining.shape, np.int8)
    for start in range(0, remaining.shape[1], _BLOCK):
        end = min(start + _BLOCK, remaining.shape[1])
        errors = np.zeros((len(remaining), end - start), np.float32)
        for column in range(start, end):
            steps = np.clip(np.rint(remaining[:, column] / scales), -levels, levels)
            ordered[:, column] = steps
            error = (remaining[:, column] - steps * scales) / spread[column, column]
            remaining[:, column:end] -= error[:, None] * spread[column, column:end]
            errors[:, column - start] = error
        remaining[:, end:] -= errors @ spread[start:end, end:]
    codes = np.empty_like(ordered)
    codes[:, order] = ordered
    return codes


def _inverse_root(hessian: Float64) -> Float64:
    """Upper triangular U with Uᵀ U the inverse: row i spreads the error of column i."""
    mean = float(np.trace(hessian)) / len(hessian)
    if mean == 0.0:  # all inputs were zero: no error to compensate
        return np.eye(len(hessian))
    inverse = np.linalg.inv(hessian + _DAMPING * mean * np.eye(len(hessian)))
    # `inv` is slightly asymmetric, and `cholesky` reads one half.
    lower = np.linalg.cholesky((inverse + inverse.T) / 2)
    return np.asarray(lower.T, np.float64)
