"""Fits loss = E + A / N^alpha + B / D^beta to many weightings of the same runs at once.

Hoffmann et al., arXiv:2203.15556, approach 3: the Huber loss of the logarithms' residuals. Each row
of a batch is one problem: a start of the search, or a resample of the bootstrap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# S problems, R runs, 5 unknowns: logarithms of E, A and B (at the runs' centre), alpha and beta

HUBER_DELTA = 1e-3
"Beyond it a residual counts linearly. Hoffmann et al., section D.2."
EXPONENTS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.7, 1.0, 1.5)
"Where the search starts, for alpha and for beta."
SMALLEST_EXPONENT, LARGEST_EXPONENT = 0.01, 4.0
SMALLEST_SHARE = 1e-4
"Of the mean loss: what E, A / N^alpha or B / D^beta is at least, at the centre of the runs."
STEPS = 4000

Array = np.ndarray


@dataclass(frozen=True)
class Points:
    """Runs to fit, their logarithms centred so that A and alpha do not pull at each other."""

    log_params: Array
    log_tokens: Array
    log_loss: Array
    mean_log_params: float
    mean_log_tokens: float

    @classmethod
    def of(cls, params_R: Array, tokens_R: Array, loss_R: Array) -> Points:
        n_R, d_R = np.log(params_R), np.log(tokens_R)
        n, d = float(n_R.mean()), float(d_R.mean())
        return cls(n_R - n, d_R - d, np.log(loss_R), n, d)


def starts(points: Points) -> Array:
    """One start per pair of exponents: given those, E, A and B solve a linear problem."""
    loss_R = np.exp(points.log_loss)
    smallest = SMALLEST_SHARE * loss_R.mean()
    found = []
    for alpha in EXPONENTS:
        for beta in EXPONENTS:
            columns_R3 = np.stack(
                [
                    np.ones_like(loss_R),
                    np.exp(-alpha * points.log_params),
                    np.exp(-beta * points.log_tokens),
                ],
                axis=1,
            )
            # Divided by the loss, so that relative residuals count, as in the logarithm.
            solved, *_ = np.linalg.lstsq(
                columns_R3 / loss_R[:, None], np.ones_like(loss_R), rcond=None
            )
            e, a, b = np.log(np.maximum(solved, 10 * smallest))
            found.append((e, a, b, np.log(alpha), np.log(beta)))
    return np.array(found)


def minimise(points: Points, weights_SR: Array, start_S5: Array) -> tuple[Array, Array]:
    """Unknowns and objective of each problem; every accepted step lowers its objective.

    Levenberg-Marquardt on reweighted squares: with weights min(1, delta / |residual|) they touch
    the Huber loss from above, so what lowers them lowers it.
    """
    low_5, high_5 = _bounds(points)
    x_S5 = np.clip(start_S5, low_5, high_5)
    residual_SR, jacobian_SR5 = _residuals(points, x_S5)
    objective_S = huber(residual_SR, weights_SR)
    damping_S = np.full(len(x_S5), 1e-3)
    still_S = np.zeros(len(x_S5), dtype=int)
    identity = np.eye(5)
    for _ in range(STEPS):
        reweighted_SR = weights_SR * np.minimum(
            1, HUBER_DELTA / np.maximum(np.abs(residual_SR), 1e-300)
        )
        weighted_S5R = np.swapaxes(jacobian_SR5 * reweighted_SR[..., None], 1, 2)
        curvature_S55 = weighted_S5R @ jacobian_SR5
        gradient_S5 = (weighted_S5R @ residual_SR[..., None])[..., 0]
        scale_S = np.trace(curvature_S55, axis1=1, axis2=2) / 5
        damped_S55 = curvature_S55 + (damping_S * scale_S)[:, None, None] * identity
        step_S5 = -np.linalg.solve(damped_S55, gradient_S5[..., None])[..., 0]
        tried_S5 = np.clip(x_S5 + step_S5, low_5, high_5)
        tried_SR, tried_SR5 = _residuals(points, tried_S5)
        tried_S = huber(tried_SR, weights_SR)
        better_S = tried_S < objective_S
        gain_S = np.where(better_S, 1 - tried_S / np.maximum(objective_S, 1e-300), 0)
        still_S = np.where(gain_S > 1e-9, 0, still_S + 1)
        damping_S = np.clip(np.where(better_S, damping_S / 4, damping_S * 3), 1e-9, 1e9)
        x_S5[better_S], objective_S[better_S] = tried_S5[better_S], tried_S[better_S]
        residual_SR[better_S], jacobian_SR5[better_S] = tried_SR[better_S], tried_SR5[better_S]
        if (still_S > 25).all():
            break
    return x_S5, objective_S


def huber(residual_SR: Array, weights_SR: Array) -> Array:
    """Sum over the runs of each problem."""
    size_SR = np.abs(residual_SR)
    loss_SR = np.where(
        size_SR <= HUBER_DELTA, size_SR**2 / 2, HUBER_DELTA * (size_SR - HUBER_DELTA / 2)
    )
    return (weights_SR * loss_SR).sum(axis=1)


def constants(points: Points, x_S5: Array) -> Array:
    """E, A, alpha, B, beta of each problem, for parameters and tokens as they are counted."""
    e, a, b, log_alpha, log_beta = x_S5.T
    alpha, beta = np.exp(log_alpha), np.exp(log_beta)
    big_a = np.exp(a + alpha * points.mean_log_params)
    big_b = np.exp(b + beta * points.mean_log_tokens)
    return np.stack([np.exp(e), big_a, alpha, big_b, beta], axis=1)


def at_bounds(points: Points, x_5: Array) -> list[str]:
    """Unknowns that ended where the search was not let further."""
    low_5, high_5 = _bounds(points)
    names = ("E", "A", "B", "alpha", "beta")
    return [
        name
        for name, x, low, high in zip(names, x_5, low_5, high_5)
        if x <= low + 1e-6 or x >= high - 1e-6
    ]


def _bounds(points: Points) -> tuple[Array, Array]:
    mean = float(points.log_loss.mean())
    low, high = mean + np.log(SMALLEST_SHARE), mean + np.log(10)
    exponents = np.log([SMALLEST_EXPONENT, LARGEST_EXPONENT])
    return (
        np.array([low] * 3 + [exponents[0]] * 2),
        np.array([high] * 3 + [exponents[1]] * 2),
    )


def _residuals(points: Points, x_S5: Array) -> tuple[Array, Array]:
    """Logarithm of the law minus that of the loss, and its derivatives by the unknowns."""
    e, a, b, log_alpha, log_beta = (column[:, None] for column in x_S5.T)
    alpha, beta = np.exp(log_alpha), np.exp(log_beta)
    by_params_SR = np.exp(a - alpha * points.log_params)
    by_tokens_SR = np.exp(b - beta * points.log_tokens)
    law_SR = np.exp(e) + by_params_SR + by_tokens_SR
    share_n, share_d = by_params_SR / law_SR, by_tokens_SR / law_SR
    jacobian_SR5 = np.stack(
        [
            np.exp(e) / law_SR,
            share_n,
            share_d,
            -alpha * points.log_params * share_n,
            -beta * points.log_tokens * share_d,
        ],
        axis=2,
    )
    return np.log(law_SR) - points.log_loss, jacobian_SR5
