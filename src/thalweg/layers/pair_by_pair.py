"""Word vectors learned a pair of words at a time, compiled: each pair descends from where the one before it has led."""

import math

import numpy
from numba import njit


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def descend(inputs, outputs, bag, weight, target, urn, path, turn, negatives, rate, state):
    """One step of gradient descent for every target of every row, in their order; inputs and outputs are changed.

    x = sum_j weight_j inputs[bag_j];   for the target w the rows r of outputs and what each is to answer, y:
    with a tree, (path[w, k], turn[w, k] > 0) as far as turn is not 0; else (w, 1), and (n, 0) for `negatives` words n that
    are drawn from the urn and are not w.   loss = - sum_r log sigmoid((2 y - 1) x . outputs[r])

    bag, weight: [row word], weight 0 where there is none; target: [row word], -1 where there is none.
    urn: as many numbers as a power of 2.   path, turn: [word depth], of no depth without a tree.
    state: of the random numbers, 64 bits.   Returns it.
    """
    dim, tree = inputs.shape[1], path.shape[1] > 0
    last = numpy.uint64(len(urn) - 1)
    most = max(path.shape[1], 1 + negatives)
    rows, answers, scores = numpy.empty(most, numpy.int64), numpy.empty(most, inputs.dtype), numpy.empty(most, inputs.dtype)
    x, slope = numpy.empty(dim, inputs.dtype), numpy.empty(dim, inputs.dtype)
    zero, one = inputs.dtype.type(0), inputs.dtype.type(1)
    for i in range(len(target)):
        for j in range(target.shape[1]):
            word = target[i, j]
            if word < 0:
                continue
            x[:] = 0
            slope[:] = 0
            for b in range(bag.shape[1]):
                share, row = weight[i, b], bag[i, b]
                if share != 0:
                    for d in range(dim):
                        x[d] += share * inputs[row, d]
            count = 0
            for k in range(path.shape[1] if tree else 1 + negatives):
                if tree:
                    row, answer = path[word, k], turn[word, k]
                    if answer == 0:
                        break
                elif k == 0:
                    row, answer = word, 1
                else:
                    state = state * numpy.uint64(6364136223846793005) + numpy.uint64(1442695040888963407)
                    row, answer = urn[(state >> numpy.uint64(33)) & last], -1
                    if row == word:
                        continue
                rows[count], answers[count] = row, answer > 0
                count += 1
            for k in range(count):  # all before any is changed, so that the rows arrive from memory side by side
                row = rows[k]
                score = zero
                for d in range(dim):
                    score += x[d] * outputs[row, d]
                scores[k] = score
            for k in range(count):
                row, scores[k] = rows[k], rate * (answers[k] - one / (one + math.exp(-scores[k])))
                for d in range(dim):
                    slope[d] += scores[k] * outputs[row, d]
            for k in range(count):
                row, step = rows[k], scores[k]
                for d in range(dim):
                    outputs[row, d] += step * x[d]
            for b in range(bag.shape[1]):
                share, row = weight[i, b], bag[i, b]
                if share != 0:
                    for d in range(dim):
                        inputs[row, d] += share * slope[d]
    return state
