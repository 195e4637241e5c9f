"""Plans how many points a sample needs for the area of a class: `landcover sample --for "sealed ± 2 %"`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline import legend
from pipeline.errors import ConfigError
from pipeline.evaluation.area_estimation import plan_units
from pipeline.runs.accuracy.counted_map import CountedMap

_GOAL = re.compile(
    r"\s*(?P<name>[\w ]*\w)\s*(±|\+/?-)\s*(?P<width>\d+([.,]\d+)?)\s*(?P<unit>%|ha)"
    r"(\s+at\s+(?P<confidence>\d+([.,]\d+)?)\s*%)?\s*"
)
_M2_PER_HA = 10_000
_RIGHT = 0.8
"""Assumed share of right pixels of a class where the map has no confidence."""
_WIDEST = 0.5
"""Half width, as a share of the map, that says nothing."""
_SURE = (0.02, 0.98)
"""Expected shares stay within these: no class is assumed to be without errors."""


@dataclass(frozen=True)
class SampleGoal:
    """An area that a sample is to give, and how exactly."""

    name: str
    """Of a class or a group of classes."""
    members: tuple[int, ...]
    """FLAIR values."""
    half_width: float
    """Of the interval, in `unit`."""
    unit: str
    """`%` of the mapped area, or `ha`."""
    confidence: float = 0.95

    @classmethod
    def parse(cls, text: str) -> "SampleGoal":
        """`sealed ± 2 %`, `vineyard +- 50 ha at 90 %`.

        Raises:
            ConfigError: neither this form, nor the name of a class or group; or a width or confidence out of range.
        """
        found = _GOAL.fullmatch(text)
        if found is None:
            raise ConfigError(
                f"--for {text!r}: expected a class or a group, ± and a half width in % of the mapped area or in ha, "
                "such as 'sealed ± 2 %', 'vineyard +- 50 ha' or 'sealed ± 2 % at 90 %'"
            )
        if found["unit"] == "ha" and re.fullmatch(r"[1-9]\d{0,2}[.,]\d{3}", found["width"]):
            digits = re.sub("[.,]", "", found["width"])
            raise ConfigError(
                f"--for {text!r}: {found['width']} may be {int(digits) / 1000:g} or {digits} ha; write one of these"
            )
        width, confidence = (float((found[key] or "95").replace(",", ".")) for key in ("width", "confidence"))
        if width <= 0 or not 50 <= confidence < 100 or (found["unit"] == "%" and width >= 100 * _WIDEST):
            raise ConfigError(
                f"--for {text!r}: expected a half width above 0 (below 50 %), and a confidence of 50..99.9 %"
            )
        return cls(found["name"], legend.members(found["name"]), width, found["unit"], confidence / 100)


@dataclass(frozen=True)
class SamplePlan:
    """How many points a goal needs, and what that rests on."""

    goal: SampleGoal
    units: dict[int, int]
    """FLAIR value → points."""
    half_width: float
    """Expected, as a share of the mapped area."""
    mapped_m2: Mapping[int, float]
    expected: Mapping[int, float]
    """FLAIR value → assumed share of it that truly is of the goal's classes."""
    from_confidence: bool

    def sentences(self) -> tuple[str, ...]:
        """What the plan expects and assumes, for people."""
        whole = sum(self.mapped_m2.values())
        mapped = sum(self.mapped_m2.get(value, 0.0) for value in self.goal.members)
        true = sum(self.mapped_m2[value] * share for value, share in self.expected.items())
        half, name = self.half_width * whole / _M2_PER_HA, self.goal.name
        right = [share for value, share in self.expected.items() if value in self.goal.members]
        why = (
            "its mean confidence says"
            if self.from_confidence
            else f"{100 * _RIGHT:.0f} %, for the map has no confidence"
        )
        expected = (
            f"expected half width of its true area, {100 * self.goal.confidence:g} % interval: {half:,.2f} ha, "
            f"{100 * self.half_width:.2f} % of the map"
        )
        assumed = (
            f"assumed: each class is right as often as {why} ({name}: {100 * min(right):.0f} to "
            f"{100 * max(right):.0f} %), and its errors are of other classes by their areas; then {name} truly covers "
            f"{true / _M2_PER_HA:,.2f} ha"
        )
        return (
            f"{name}: mapped on {mapped / _M2_PER_HA:,.2f} ha, {100 * mapped / whole:.1f} % of the map",
            expected,
            assumed,
            "if the map errs more often than that, the interval will be wider",
        )


def plan_sample(goal: SampleGoal, counted: CountedMap, *, least: int) -> SamplePlan:
    """The fewest points for a goal.

    Args:
        goal: what is wanted.
        counted: the map, with its confidences if it has them.
        least: points of each class at least.

    Raises:
        ConfigError: no class of the goal is on the map.
        EvaluationError: too many points would be needed.
    """
    mapped = counted.mapped_m2
    whole, own = sum(mapped.values()), sum(mapped.get(value, 0.0) for value in goal.members)
    if not own:
        raise ConfigError(f"--for {goal.name}: the map has none of it; expected one of {_listed(mapped)}")
    confidence = counted.mean_confidence
    expected = {}
    for value, area in mapped.items():
        right = _RIGHT if confidence is None else confidence[value]
        others = (own - area if value in goal.members else own) / (whole - area) if whole > area else 0.0
        share = right * (value in goal.members) + (1 - right) * others
        expected[value] = min(max(share, _SURE[0]), _SURE[1])
    half_width = goal.half_width / 100 if goal.unit == "%" else goal.half_width * _M2_PER_HA / whole
    if half_width >= _WIDEST:
        raise ConfigError(
            f"--for {goal.name}: a half width of {goal.half_width:g} ha is {100 * half_width:.0f} % of the map, which "
            f"has {whole / _M2_PER_HA:,.2f} ha; expected less than {100 * _WIDEST:.0f} %"
        )
    planned = plan_units(
        mapped, expected, half_width=half_width, least=least, confidence=goal.confidence, most=counted.pixels
    )
    return SamplePlan(goal, planned.units, planned.half_width, mapped, expected, confidence is not None)


def _listed(mapped: Mapping[int, float]) -> str:
    return ", ".join(legend.BY_VALUE[value].name for value in sorted(mapped))
