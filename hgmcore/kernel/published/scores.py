"""How well predicted changes agree with published ones."""

from __future__ import annotations

import numpy as np

BAND = 2.5
"""Points within which published changes are noise: standard deviations of 1 to 2 %, and code layout."""

FAR = 5.0
"""Points from which on a prediction is called a miss."""

GOALS = {"sign": 0.90, "null": 0.90, "rank": 0.90, "covered": 0.85}
MOST = {"mean_error": 2.5}
"""What a set of judged cells is to reach at least, and at most; its mean error is to be at most half the baseline's."""


def ranks(values) -> np.ndarray:
    """Ranks from 0, ties averaged."""
    values = np.asarray(values, float)
    return np.array([(values < value).sum() + ((values == value).sum() - 1) / 2 for value in values])


def correlation(one, other) -> float | None:
    """Spearman's; None where one of the two is all the same."""
    one, other = ranks(one), ranks(other)
    return float(np.corrcoef(one, other)[0, 1]) if len(one) > 1 and one.std() and other.std() else None


def share(values) -> float | None:
    """The share of true ones; None of none."""
    return float(np.mean(values)) if len(values) else None


def score(predicted, published, intervals=None) -> dict:
    """Scores of predicted changes (points) against published ones; intervals: (low, high) of each prediction.

    "sign": of cells beyond the noise band, the share with the right sign; "null": of the others, the share predicted
    within twice the band; "rank": correlation over all; "mean_error" and "median_error" in points; "covered": the share
    of published changes inside the 90 % interval. None where there is nothing to tell.
    """
    p, y = np.asarray(predicted, float), np.asarray(published, float)
    signed = np.abs(y) > BAND
    found = {"cells": len(y), "signed": int(signed.sum()), "sign": share(np.sign(p[signed]) == np.sign(y[signed])),
             "null": share(np.abs(p[~signed]) <= 2 * BAND), "rank": correlation(p, y),
             "mean_error": float(np.abs(p - y).mean()), "median_error": float(np.median(np.abs(p - y)))}
    if intervals is not None:
        low, high = np.asarray(intervals, float).T
        found["covered"] = share((low <= y) & (y <= high))
    return found


def missed(predicted, published, low, high) -> bool:
    """Is a cell to be shown as a miss: a wrong sign, more than FAR off, or outside the interval?"""
    wrong = abs(published) > BAND and np.sign(predicted) != np.sign(published)
    return bool(wrong or abs(predicted - published) > FAR or not low <= published <= high)


def goals(found, baseline) -> dict:
    """{goal: reached} of a score, beside that of the baseline on the same cells."""
    reached = {name: found[name] is None or found[name] >= least for name, least in GOALS.items()}
    reached |= {name: found[name] <= most for name, most in MOST.items()}
    return {**reached, "half_the_baseline": found["mean_error"] <= baseline["mean_error"] / 2}
