"""Non-maximum suppression of many boxes on a processor: the rule itself, compiled, with each box compared to those near it."""

import numpy
from numba import njit


@njit(cache=True, error_model="numpy")
def kept(boxes, area, label, threshold):
    """Which of boxes, best first, are kept: those whose intersection over union with none that is kept is above the threshold.

    An intersection over union above t takes an intersection wider than t times either width: the widths differ by less than
    a factor t, and the centres by less than (1 - t) / 2 times the sum of the widths; heights alike. So those that are kept
    are filed by the cell in which their centre lies, and a box is compared with those of the cells around it.
    boxes: [box 4], area, label: [box], contiguous; only boxes of one label suppress each other.   threshold: at least 0.
    """
    corner = boxes.astype(numpy.float64)
    wide, tall = numpy.maximum(corner[:, 2] - corner[:, 0], 0), numpy.maximum(corner[:, 3] - corner[:, 1], 0)
    x, y = (corner[:, 0] + corner[:, 2]) / 2, (corner[:, 1] + corner[:, 3]) / 2
    width, left, columns, widest = _cells(x, wide)
    height, top, rows, tallest = _cells(y, tall)
    first, after = numpy.full((rows, columns), -1), numpy.full(len(boxes), -1)  # of a cell, and of those filed with a box
    alive = numpy.ones(len(boxes), numpy.bool_)
    for i in range(len(boxes)):
        if not numpy.isfinite(x[i] + y[i] + wide[i] + tall[i]):
            continue  # it is near nothing
        across = _reach(wide[i], widest, threshold)
        down = _reach(tall[i], tallest, threshold)
        for row in range(_cell(y[i] - down, top, height, rows), _cell(y[i] + down, top, height, rows) + 1):
            for column in range(_cell(x[i] - across, left, width, columns), _cell(x[i] + across, left, width, columns) + 1):
                j = first[row, column]
                while j >= 0 and alive[i]:
                    common = min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0])
                    high = min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1])
                    if common > 0 and high > 0 and label[i] == label[j]:
                        both = common * high
                        if both / (area[i] + area[j] - both) > threshold:
                            alive[i] = False
                    j = after[j]
                if not alive[i]:
                    break
            if not alive[i]:
                break
        if alive[i]:
            row, column = _cell(y[i], top, height, rows), _cell(x[i], left, width, columns)
            after[i], first[row, column] = first[row, column], i
    return alive


@njit(cache=True, error_model="numpy")
def _cells(centre, side):
    """The extent of a cell along one axis, about that of the boxes; where cells begin, how many there are; the longest side."""
    low, high, total, longest, count = numpy.inf, -numpy.inf, 0.0, 0.0, 0
    for i in range(len(centre)):
        if numpy.isfinite(centre[i] + side[i]):
            low, high, count = min(low, centre[i]), max(high, centre[i]), count + 1
            total, longest = total + side[i], max(longest, side[i])
    if not count:
        return 1.0, 0.0, 1, 0.0
    extent = max(total / count, (high - low) / 256, 1e-30)
    return extent, low, int((high - low) / extent) + 1, longest


@njit(cache=True)
def _cell(place, begin, extent, count):
    return min(max(int((place - begin) / extent), 0), count - 1)


@njit(cache=True)
def _reach(side, longest, threshold):
    """How far the centre of another box may be along one axis; a little more, for what rounding takes."""
    other = min(side / threshold, longest) if threshold > 0 else longest
    return (1 - threshold) * 0.50001 * (side + other) + 1e-6 * side
