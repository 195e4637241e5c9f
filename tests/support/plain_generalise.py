"""The generalised map by the plainest code: whole images, one patch after the other. Slow, and independent of ours."""

import heapq
from collections import Counter, defaultdict

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Classes = NDArray[np.uint8]


def by_pixels(classes: Classes, units: NDArray[np.int64]) -> Classes:
    """Looks for the smallest patch that is too small, gives it away, and looks again. For images of some 100 pixels."""
    image = classes.copy()
    while (found := _smallest(image, units)) is not None:
        pixels, border = found
        image[tuple(np.transpose(pixels))] = min(border, key=lambda value: (-border[value], value))
    return image


def _smallest(image: Classes, units: NDArray[np.int64]) -> tuple[list[tuple[int, int]], Counter[int]] | None:
    best: tuple[int, list[tuple[int, int]], Counter[int]] | None = None
    seen: set[tuple[int, int]] = set()
    for start in np.ndindex(image.shape):
        if start in seen or not image[start]:
            continue
        pixels, border = _flood(image, start)
        seen |= set(pixels)
        if len(pixels) < units[image[start]] and border and (best is None or len(pixels) < best[0]):
            best = (len(pixels), pixels, border)
    return best and best[1:]


def _flood(image: Classes, start: tuple[int, ...]) -> tuple[list[tuple[int, int]], Counter[int]]:
    """A patch's pixels, and sides of pixels between it and each other class."""
    todo, pixels, border = [(start[0], start[1])], {(start[0], start[1])}, Counter[int]()
    while todo:
        row, col = todo.pop()
        for r, c in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)):
            if not (0 <= r < image.shape[0] and 0 <= c < image.shape[1]) or not image[r, c]:
                continue
            if image[r, c] != image[start]:
                border[int(image[r, c])] += 1
            elif (r, c) not in pixels:
                pixels.add((r, c))
                todo.append((r, c))
    return list(pixels), border


def by_graph(classes: Classes, units: NDArray[np.int64]) -> Classes:
    """The same by a list of patches in order of size, for images of some megapixels."""
    graph = _Graph(classes)
    small = [graph.entry(p) for p in graph.area if graph.value[p] and graph.area[p] < units[graph.value[p]]]
    heapq.heapify(small)
    while small:
        size, _, patch = heapq.heappop(small)
        if patch in graph.into or size != graph.area[patch] or not graph.touching[patch]:
            continue
        grown = graph.give_away(patch)
        if graph.area[grown] < units[graph.value[grown]]:
            heapq.heappush(small, graph.entry(grown))
    return graph.paint()


class _Graph:
    """Patches, and which of them touch each other."""

    def __init__(self, classes: Classes) -> None:
        self._labels = np.zeros(classes.shape, np.int64)
        for value in np.unique(classes[classes > 0]).tolist():
            own, _ = ndimage.label(classes == value)
            self._labels[own > 0] = own[own > 0] + self._labels.max()
        names, first, count = (a.tolist() for a in np.unique(self._labels, return_index=True, return_counts=True))
        self.area = dict(zip(names, count, strict=True))
        self.start = dict(zip(names, first, strict=True))
        self.value = dict(zip(names, classes.ravel()[first].tolist(), strict=True))
        self.touching = _touching(self._labels)
        self.into: dict[int, int] = {}

    def entry(self, patch: int) -> tuple[int, int, int]:
        return self.area[patch], self.start[patch], patch

    def give_away(self, patch: int) -> int:
        """Gives a patch the class with which it has the longest border; returns the patch that it is part of then."""
        by_class: Counter[int] = Counter()
        for other, length in self.touching[patch].items():
            by_class[self.value[other]] += length
        target = min(by_class, key=lambda value: (-by_class[value], value))
        together = [patch, *(p for p in self.touching[patch] if self.value[p] == target)]
        # The one with the longest list takes in the others, or time grows with the square of the patches.
        grown = max(together, key=lambda p: len(self.touching[p]))
        self.value[grown] = target
        for other in together:
            if other != grown:
                self._take_in(grown, other)
        return grown

    def _take_in(self, grown: int, other: int) -> None:
        self.into[other] = grown
        self.area[grown] += self.area[other]
        self.start[grown] = min(self.start[grown], self.start[other])
        for third, length in self.touching.pop(other).items():
            del self.touching[third][other]
            if third != grown:
                self.touching[grown][third] += length
                self.touching[third][grown] += length

    def paint(self) -> Classes:
        final = np.zeros(max(self.value) + 1, np.uint8)
        for patch in self.value:
            at = patch
            while at in self.into:
                at = self.into[at]
            final[patch] = self.value[at]
        return np.asarray(final[self._labels])


def _touching(labels: NDArray[np.int64]) -> dict[int, Counter[int]]:
    """Patch → patches beside it, with the sides of pixels between them; nodata is none."""
    found: dict[int, Counter[int]] = defaultdict(Counter)
    for one, other in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        apart = (one != other) & (one > 0) & (other > 0)
        pairs, counts = np.unique(np.stack([one[apart], other[apart]]), axis=1, return_counts=True)
        for a, b, count in zip(*pairs.tolist(), counts.tolist(), strict=True):
            found[a][b] += count
            found[b][a] += count
    return found
