"""The loops of :mod:`dqas_plugin.methods.distance_cover` and :mod:`dqas_plugin.methods.greedy_coverage`, as machine code."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dqas_plugin.compiled import ANY_ORDER, compiled
from dqas_plugin.data import FloatArray, IntArray

SingleArray = npt.NDArray[np.float32]

_RUN = 64  # values looked at together, most often in vain
_CALL = 64  # what a distance in float64 takes beyond its terms, in terms
_SCAN = 1.0  # what one distance in float32 takes to look at, in terms
_TILE = 64  # rows and columns that are mirrored at once, so that they stay in the processor's cache


class Samples(NamedTuple):
    """Vectors ``length · (left ⊗ right)`` of m distinct samples, ``right`` being ``inverse · [features, 1]``.

    Attributes:
        lengths: float64 ``[m]``, at most 1.
        left: unit vectors, float64 ``[m, C]``.
        features: float32 ``[m, d]``.
        inverse: one over the lengths of ``[features, 1]``, float64 ``[m]``.
        counts: how often there is each sample, float64 ``[m]``.
        floor: the least distance.
    """

    lengths: FloatArray
    left: FloatArray
    features: SingleArray
    inverse: FloatArray
    counts: FloatArray
    floor: float


class Spread(NamedTuple):
    """What the products of centred factors do not say.

    Attributes:
        left, right: half the squared lengths of the centred factors, float64 ``[m]``.
        near_left, near_right: pairs are near if their squared distance is below ``near_left_i near_left_j + near_right_i
            near_right_j``; float64 ``[m]``.
    """

    left: FloatArray
    right: FloatArray
    near_left: FloatArray
    near_right: FloatArray


class State(NamedTuple):
    """Where the greedy algorithm stands.

    Attributes:
        gain: of every sample by the distances in float32, float64 ``[m]``; minus infinity once it is picked.
        reach: distance to the nearest pick in float32, ``[m]``.
        nearest: that pick as float64 has it, of the lowest position among equally near ones, int64 ``[m]``.
        known: the distance to it in float64, ``[m]``, below 0 where it has not been computed.
        bound: how far off a distance shorter than ``reach`` is, float64 ``[m]``.
        part: its parts that do not and that do depend on ``reach``, ``[2, m]``.
        limit: distances below it may be shorter than that to the nearest pick, float32 ``[m]``.
        exact: gains in float64 of samples looked at for this pick, ``[m]``.
        turn: the pick they were looked at for, int64 ``[m]``.
        close: room for m samples.
        rows, old, new: samples that a pick is nearer to than the ones before, and both distances; room for m.
    """

    gain: FloatArray
    reach: SingleArray
    nearest: IntArray
    known: FloatArray
    bound: FloatArray
    part: FloatArray
    limit: SingleArray
    exact: FloatArray
    turn: IntArray
    close: IntArray
    rows: IntArray
    old: SingleArray
    new: SingleArray


@compiled(fastmath=ANY_ORDER)
def centred(features: Any, inverse: Any, result: Any, half: Any) -> None:
    """``inverse · [features, 1]`` around its mean as float32 ``[m, d + 1]``, and half the squared lengths of that."""
    count, width = features.shape
    mean = np.zeros(width + 1)
    for row in range(count):
        squares = 1.0
        for place in range(width):
            squares += np.float64(features[row, place]) * np.float64(features[row, place])
        factor = 1.0 / math.sqrt(squares)
        inverse[row] = factor
        for place in range(width):
            mean[place] += features[row, place] * factor
        mean[width] += factor
    mean /= count
    for row in range(count):
        factor, squares = inverse[row], 0.0
        for place in range(width):
            result[row, place] = features[row, place] * factor - mean[place]
            squares += np.float64(result[row, place]) * np.float64(result[row, place])
        result[row, width] = factor - mean[width]
        half[row] = (squares + np.float64(result[row, width]) ** 2) / 2


@compiled(fastmath=ANY_ORDER)
def distance(samples: Any, one: int, other: int) -> Any:
    """Distance of two samples, in float64 from the differences of their factors: nothing cancels."""
    left, right = 0.0, (samples.inverse[one] - samples.inverse[other]) ** 2
    for place in range(samples.left.shape[1]):
        left += (samples.left[one, place] - samples.left[other, place]) ** 2
    scale, scale_other = samples.inverse[one], samples.inverse[other]
    for place in range(samples.features.shape[1]):
        right += (samples.features[one, place] * scale - samples.features[other, place] * scale_other) ** 2
    left, right = left / 2, right / 2
    length, length_other = samples.lengths[one], samples.lengths[other]
    squares = (length - length_other) ** 2 + 2 * length * length_other * (left + (1 - left) * right)
    return max(math.sqrt(squares), samples.floor)


@compiled(fastmath=ANY_ORDER)
def _row(result: Any, left: Any, right: Any, samples: Any, spread: Any, row: int) -> Any:
    """Distances of a sample from those after it, by the products of their factors; how many are near."""
    length, half, other = samples.lengths[row], spread.left[row], spread.right[row]
    near, near_other = spread.near_left[row], spread.near_right[row]
    lengths, halves, others = samples.lengths[row + 1 :], spread.left[row + 1 :], spread.right[row + 1 :]
    nears, near_others = spread.near_left[row + 1 :], spread.near_right[row + 1 :]
    least, found = samples.floor**2, np.int64(0)
    for place in range(len(result)):
        one = half + halves[place] - left[place]
        two = other + others[place] - right[place]
        squares = (length - lengths[place]) ** 2 + 2 * length * lengths[place] * (one + two - one * two)
        found += np.int64(squares < near * nears[place] + near_other * near_others[place])
        result[place] = math.sqrt(max(squares, least))
    return found


@compiled(fastmath=ANY_ORDER)
def _sharpen(samples: Any, spread: Any, row: int, result: Any) -> None:
    """Put the distances of near pairs right."""
    near, near_other = spread.near_left[row], spread.near_right[row]
    for place in range(len(result)):
        column = row + 1 + place
        limit = near * spread.near_left[column] + near_other * spread.near_right[column]
        if np.float64(result[place]) ** 2 < limit * (1 + 1e-6):
            result[place] = distance(samples, row, column)


@compiled(fastmath=ANY_ORDER)
def _add(result: Any, row: int, all_counts: Any, all_totals: Any) -> Any:
    """Add the distances of a sample from those after it to the sums of all; the longest."""
    count, counts, totals = all_counts[row], all_counts[row + 1 :], all_totals[row + 1 :]
    own, longest = 0.0, np.float32(0.0)
    for place in range(len(result)):
        own += counts[place] * result[place]
        totals[place] += count * result[place]
        longest = max(longest, result[place])
    all_totals[row] += own
    return longest


@compiled(fastmath=ANY_ORDER)
def fill(matrix: Any, start: int, left: Any, right: Any, samples: Any, spread: Any, total: Any) -> Any:
    """Fill in the matrix right of the diagonal, its rows from ``start`` on.

    ``left`` and ``right`` are the products of these rows' factors with those from ``start`` on, float32 ``[rows, m - start]``,
    and ``total``, float64 ``[m]``, the sums of everybody's distances so far.

    Returns:
        how many pairs are near, and the longest distance.
    """
    near, highest = 0, np.float32(0.0)
    for place in range(len(left)):
        row = start + place
        result = matrix[row, row + 1 :]
        found = _row(result, left[place, place + 1 :], right[place, place + 1 :], samples, spread, row)
        if found:
            near += found
            _sharpen(samples, spread, row, result)
        highest = max(highest, _add(result, row, samples.counts, total))
        matrix[row, row] = samples.floor
        total[row] += samples.counts[row] * matrix[row, row]
    return near, highest


@compiled(fastmath=ANY_ORDER)
def mirror(matrix: Any, start: int, end: int) -> None:
    """Copy these rows right of the diagonal to the columns below it."""
    count = len(matrix)
    for first in range(start, end, _TILE):
        last = min(first + _TILE, end)
        for row in range(first + 1, last):
            for column in range(first, row):
                matrix[row, column] = matrix[column, row]
        for low in range(last, count, _TILE):
            source, target = matrix[first:last, low : low + _TILE], matrix[low : low + _TILE, first:last]
            for row in range(len(target)):
                for column in range(target.shape[1]):
                    target[row, column] = source[column, row]


@compiled(fastmath=ANY_ORDER)
def lower(gain: Any, matrix: Any, counts: Any, rows: Any, old: Any, new: Any) -> None:
    """Take from all gains what samples at some rows no longer give, as they were ``old`` and are ``new`` from a pick.

    ``counts`` of those samples are negative where the matrix holds similarities, which rise, instead of distances.
    """
    # max(0, old - d) - max(0, new - d) is old - d between the two; float32 has no digits for that difference
    whole = len(rows) - len(rows) % 2
    for place in range(0, whole, 2):  # two at a time, as gains are read and written for each
        one, two = matrix[rows[place]], matrix[rows[place + 1]]
        count, before, now = counts[rows[place]], old[place], new[place]
        count_two, before_two, now_two = counts[rows[place + 1]], old[place + 1], new[place + 1]
        low, high, low_two, high_two = min(before, now), max(before, now), min(before_two, now_two), max(before_two, now_two)
        for x in range(len(gain)):
            fallen = count * (np.float64(before) - np.float64(min(high, max(low, one[x]))))
            gain[x] -= fallen + count_two * (np.float64(before_two) - np.float64(min(high_two, max(low_two, two[x]))))
    for place in range(whole, len(rows)):
        one, count, before, now = matrix[rows[place]], counts[rows[place]], old[place], new[place]
        low, high = min(before, now), max(before, now)
        for x in range(len(gain)):
            gain[x] -= count * (np.float64(before) - np.float64(min(high, max(low, one[x]))))


@compiled(fastmath=ANY_ORDER)
def _below(values: Any, limits: Any, result: Any) -> Any:
    """Places of the values below their limits, and how many there are."""
    found = 0
    for start in range(0, len(values), _RUN):
        some, their = values[start : start + _RUN], limits[start : start + _RUN]
        hits = np.int32(0)
        for place in range(len(some)):  # many at once
            hits += np.int32(some[place] < their[place])
        if hits:
            for place in range(len(some)):
                if some[place] < their[place]:
                    result[found] = start + place
                    found += 1
    return found


@compiled(fastmath=ANY_ORDER)
def _known(samples: Any, state: Any, sample: int) -> Any:
    """The distance to the nearest pick in float64, and whether it had to be computed."""
    if state.known[sample] >= 0:
        return state.known[sample], 0
    state.known[sample] = distance(samples, sample, state.nearest[sample])
    return state.known[sample], 1


@compiled(fastmath=ANY_ORDER)
def _compare(samples: Any, state: Any, sample: int, pick: int) -> Any:
    """Find out in float64 which of two picks is the nearest; how many distances it took."""
    known, spent = _known(samples, state, sample)
    other = distance(samples, sample, pick)
    if other < known or (other == known and pick < state.nearest[sample]):
        state.known[sample], state.nearest[sample] = other, pick
    return spent + 1


@compiled(fastmath=ANY_ORDER)
def approach(matrix: Any, samples: Any, state: Any, pick: int, first: bool) -> Any:
    """Let every sample know a pick.

    Returns:
        how many come nearer (``state.rows``), and how many distances were computed in float64.
    """
    row, reach, floor = matrix[pick], state.reach, np.float32(samples.floor)
    if first:
        state.limit[:] = np.inf
    found, spent = 0, 0
    for sample in state.close[: _below(row, state.limit, state.close)]:
        short = row[sample]
        if first or short < reach[sample] - 2 * state.bound[sample]:
            state.nearest[sample], state.known[sample] = pick, -1.0
        elif short <= floor and reach[sample] <= floor:
            state.nearest[sample] = min(pick, state.nearest[sample])
        else:
            spent += _compare(samples, state, sample, pick)
        if short < reach[sample]:
            state.rows[found], state.old[found], state.new[found] = sample, reach[sample], short
            found += 1
            reach[sample] = short
            state.bound[sample] = state.part[0, sample] + state.part[1, sample] * short
        state.limit[sample] = reach[sample] + 2 * state.bound[sample]
    return found, spent


@compiled(fastmath=ANY_ORDER)
def _slack(counts: Any, bound: Any) -> Any:
    """How far off a gain is where errors cancel as chance has it, and where none does."""
    squares, total = 0.0, 0.0
    for sample in range(len(counts)):
        off = counts[sample] * bound[sample]
        squares += off * off
        total += off
    return math.sqrt(squares), total


@compiled(fastmath=ANY_ORDER)
def _exact_gain(row: Any, samples: Any, state: Any, x: int, first: bool) -> Any:
    """The gain of a sample in float64, and how many distances it took."""
    floor = np.float32(samples.floor)
    result, spent = 0.0, 0
    for sample in state.close[: _below(row, state.limit, state.close)]:
        if state.reach[sample] <= floor:
            continue
        before, own = (np.float64(state.reach[sample]), 0) if first else _known(samples, state, sample)
        spent += own + 1
        result += samples.counts[sample] * max(0.0, before - distance(samples, x, sample))
    return result, spent


@compiled(fastmath=ANY_ORDER)
def _highest(values: Any) -> Any:
    result = -np.inf
    for place in range(len(values)):
        result = max(result, values[place])
    return result


@compiled(fastmath=ANY_ORDER)
def _look(matrix: Any, samples: Any, state: Any, turn: int, limit: float, most: float) -> Any:
    """Compute gains above a limit in float64, until that takes too much; the highest of them, and the work."""
    best, work = -np.inf, 0.0
    for x in range(len(state.gain)):
        if state.turn[x] != turn and state.gain[x] >= limit and work <= most:
            state.exact[x], spent = _exact_gain(matrix[x], samples, state, x, turn == 0)
            state.turn[x] = turn
            work += _SCAN * len(matrix) + work_of(samples, spent)
        if state.turn[x] == turn:
            best = max(best, state.exact[x])
    return best, work


@compiled(fastmath=ANY_ORDER)
def work_of(samples: Any, distances: int) -> Any:
    """So many distances in float64, in terms of their sums."""
    return np.float64(distances) * (_CALL + samples.left.shape[1] + samples.features.shape[1])


@compiled(fastmath=ANY_ORDER)
def choose(matrix: Any, samples: Any, state: Any, turn: int, tie: float, most: float) -> Any:
    """The sample of the highest gain, and how much work in float64 it took.

    Distances in float32 show gains of near copies of a pick that are none, never the other way round: where the highest gain
    is that low, it is looked at. Otherwise only gains that are close to each other are.

    Returns:
        the sample of the lowest position among those of equal gains, -1 if nobody gains from anything, -2 if it would take
        more work than ``most``; and the work.
    """
    slack, total = _slack(samples.counts, state.bound)
    slack += 2 * tie  # rounding of the sums themselves
    top = _highest(state.gain)
    limit, close, last = top - 2 * slack, 0, -1
    for x in range(len(state.gain)):
        if state.gain[x] >= limit:
            close, last = close + 1, x
    if close == 1 and top > total + 2 * tie:
        return last, 0.0
    best, work = _look(matrix, samples, state, turn, limit, most)
    while best - slack < limit and work <= most:
        limit = best - slack
        best, more = _look(matrix, samples, state, turn, limit, most - work)
        work += more
    if work > most:
        return -2, work
    for x in range(len(state.gain) if best > tie else 0):
        if state.turn[x] == turn and state.exact[x] >= best - tie:
            return x, work
    return -1, work


@compiled(fastmath=ANY_ORDER)
def cover(matrix: Any, samples: Any, state: Any, picks: Any, tie: float, most: float) -> Any:
    """Pick the sample of the highest gain, again and again, into ``picks``.

    Returns:
        how many were picked before nobody gained from anything, or -1 if that would take more work in float64 than ``most``.
    """
    work = 0.0
    for turn in range(len(picks)):
        pick, more = choose(matrix, samples, state, turn, tie, most - work)
        work += more
        if pick == -1:
            return turn
        if pick == -2:
            return -1
        picks[turn] = pick
        found, spent = approach(matrix, samples, state, pick, turn == 0)
        work += work_of(samples, spent)
        lower(state.gain, matrix, samples.counts, state.rows[:found], state.old[:found], state.new[:found])
        state.gain[pick] = -np.inf
    return len(picks)
