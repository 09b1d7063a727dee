"""What a SEG says of each segment: coded concepts, a colour, and the algorithm that drew it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from monai_tl.labels import LabelScheme

_COLOURS = (
    (48.0, 38.0, 33.0),
    (81.0, -2.0, 68.0),
    (57.0, -5.0, -33.0),
    (63.0, -34.0, 33.0),
    (53.0, 33.0, -27.0),
    (63.0, 26.0, 52.0),
)
"""L*a*b* of segments in turn; the way there from RGB has powers, whose last bit depends on the machine."""
MAX_NAME = 64
"""Characters of a DICOM name (LO)."""


@dataclass(frozen=True)
class Algorithm:
    """What made the label map.

    Attributes:
        name, version: As shown to a reader of the object; cut to 64 characters there.
        model_sha256: Hash of the model's weights.
    """

    name: str
    version: str
    model_sha256: str


def describe_segments(scheme: LabelScheme, algorithm: Algorithm | None) -> list[Any]:
    """One highdicom SegmentDescription a class, numbered as the values of the scheme.

    Args:
        scheme: Names and codes.
        algorithm: None for a label drawn by hand.
    """
    import highdicom
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription

    kind, identification = SegmentAlgorithmTypeValues.MANUAL, None
    if algorithm is not None:
        kind = SegmentAlgorithmTypeValues.AUTOMATIC
        identification = highdicom.AlgorithmIdentificationSequence(
            name=algorithm.name[:MAX_NAME],
            family=highdicom.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
            version=algorithm.version[:MAX_NAME],
            parameters={"model_sha256": algorithm.model_sha256},
        )
    return [
        SegmentDescription(
            segment_number=number,
            segment_label=spec.name,
            segmented_property_category=_concept(spec.category),
            segmented_property_type=_concept(spec.type),
            algorithm_type=kind,
            algorithm_identification=identification,
            anatomic_regions=None if spec.anatomic_region is None else [_concept(spec.anatomic_region)],
            display_color=highdicom.color.CIELabColor(*_COLOURS[(number - 1) % len(_COLOURS)]),
        )
        for number, spec in enumerate(scheme.classes, start=1)
    ]


def _concept(code: str) -> Any:
    import highdicom

    designator, value, meaning = (part.strip() for part in code.split("|"))
    return highdicom.sr.CodedConcept(value=value, scheme_designator=designator, meaning=meaning)
