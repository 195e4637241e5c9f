"""A domain: one département and the vintage of its imagery, written `D064_2021`."""

import re
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from pipeline.errors import ConfigError

_NAME = re.compile(r"D(?P<departement>(?!000)0\d\d|0?2[AB]|97[1-9])_(?P<year>20\d\d)")


class Domain(str):
    """The name of a domain. It is a string that was checked, so it serves as a key, a folder's name and in JSON.

    Imagery of two domains never meets in one window: their dates, suns and processing differ.

    Raises:
        ConfigError: not the name of a domain.

    Example:
        >>> domain = Domain("D064_2021")
        >>> domain.departement, domain.year, domain.code
        ('64', 2021, 6421)
    """

    __slots__ = ()

    def __new__(cls, name: str) -> "Domain":
        """Checks the name."""
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{name!r} is not a domain: expected a département and a year, such as D064_2021 or D02A_2021"
            )
        return super().__new__(cls, name)

    @property
    def departement(self) -> str:
        """Without leading zeros: `64`, `2A`, `974`."""
        return normal_departement(self[1:].partition("_")[0])

    @property
    def year(self) -> int:
        """The vintage, 2000..2099."""
        return int(self[-4:])

    @property
    def code(self) -> int:
        """The domain's number in the `domain` layer, 100..30 999: département × 100 + year − 2000.

        It depends on the name alone, so neither the order of publishing nor a new domain changes a shard. 2A and 2B
        count as 201 and 202 (their former postal codes), 971..979 as 301..309.
        """
        letters = {"2A": 201, "2B": 202}
        number = letters.get(self.departement) or int(self.departement)
        return (number - 670 if number > 900 else number) * 100 + self.year - 2000

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls._validate, core_schema.str_schema(), serialization=core_schema.to_string_ser_schema()
        )

    @classmethod
    def _validate(cls, name: str) -> "Domain":
        try:
            return cls(name)
        except ConfigError as error:
            raise ValueError(str(error)) from error


def normal_departement(code: str) -> str:
    """`064` and `64` → `64`, `02A` → `2A`, `974` → `974`: upper case, no leading zeros."""
    return code.upper().lstrip("0")
