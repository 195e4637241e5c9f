"""The report by which `precision: auto` chooses: agreement with fp32 on domains that no quantization has seen.

`landcover quantize --check` writes it beside the products, and `automatic_choices` reads it. It contains its own
checksum, and names what it is about: weights, recipe, engine and the quantized network.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config import Campaign, Precision
from pipeline.durable import write_json
from pipeline.errors import ProductError
from pipeline.untrusted.documents import Document, DocumentError
from pipeline.untrusted.own_checksum import read_checked


class MeasuredPrecision(Document):
    """A precision, compared with fp32 on windows of domains that it was not quantized with."""

    agreement: float = Field(ge=0, le=1)
    """Share of the valid pixels with the class that fp32 gives them."""
    by_domain: dict[str, float] = Field(min_length=1)
    """Domain → that share of its own pixels."""
    mpx_per_s: float = Field(gt=0)
    """Speed of the forward alone, on the machine that compared."""
    quantized_sha256: str | None = None
    """Of the int8 network; None for other precisions."""

    @property
    def least(self) -> float:
        """The share of the domain that agrees least: the one that a campaign's `minimum_agreement` is compared with."""
        return min(self.by_domain.values())


class AgreementReport(Document):
    """The content of the file."""

    weights_sha256: str
    recipe_digest: str
    engine: Literal["torch", "openvino"]
    precisions: dict[Precision, MeasuredPrecision]
    """Those that the machine has, fp32 among them, whose agreement is 1."""
    windows: int
    """Number of windows that were compared."""
    host: str
    processor: str
    made: str
    """UTC, `2026-03-01T12:00:00Z`."""
    software: dict[str, str] = Field(default={})
    """Package → version."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "fp32" not in self.precisions:
            raise ValueError("precisions: expected fp32 among them")
        return self

    def write(self, path: Path) -> None:
        """Writes the file.

        Raises:
            StorageError: the folder cannot be written.
        """
        write_json(path, self.model_dump(mode="json"), own_checksum=True)


def agreement_file(campaign: Campaign) -> Path:
    """`products/herault-2021-agreement.json`."""
    return campaign.output.domains / f"{campaign.name}-agreement.json"


def read_agreement(campaign: Campaign) -> AgreementReport | None:
    """The campaign's report; None where there is none.

    Raises:
        ProductError: it is damaged, or was changed by hand.
    """
    path = agreement_file(campaign)
    try:
        return read_checked(AgreementReport, path, former=())
    except FileNotFoundError:
        return None
    except DocumentError as error:
        raise ProductError(f"{path} is damaged: {error}; run `landcover quantize --check` again") from error
