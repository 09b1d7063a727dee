"""Bundles of the MONAI model zoo that can be pulled and read.

URLs and SHA-1 checksums are those of the zoo's own list (``models/model_info.json`` of Project-MONAI/model-zoo). It
publishes no SHA-256 and no sizes, so none are stated here; the SHA-256 of what came is recorded beside the file and
checked ever after, and whoever knows it beforehand can ask for it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from monai_tl.errors import SourceError

_HOST = "https://api.ngc.nvidia.com/v2/models/nvidia/monaihosting"


class ZooEntry(NamedTuple):
    """One bundle.

    Attributes:
        name, version: As the zoo has them.
        sha1: Of the zip file, lower-case hex, as published.
        sha256: The same, where it is known: the zoo publishes none, a user may (``pull NAME --sha256``).
        task, modality: What it segments, on what.
        network: In our table of builders.
        licence: Of the bundle, as published in it.
        data: Whose data it learned from, and their terms where the bundle states them.
        citation: As the bundle asks.
        lines: What the bundle's files do not say but its documentation and data do; written beside it as card lines.
    """

    name: str
    version: str
    sha1: str
    task: str
    modality: str
    network: str
    licence: str
    data: str
    citation: str
    lines: dict[str, Any] = {}  # noqa: RUF012 - read alone
    sha256: str | None = None

    @property
    def file_name(self) -> str:
        """Of the zip file."""
        return f"{self.name}_v{self.version}.zip"

    @property
    def url(self) -> str:
        """Where the zoo's list says it is."""
        # the host's paths are in lower case, its file names are not
        return f"{_HOST}/{self.name.lower()}/versions/{self.version}/files/{self.file_name}"


ZOO = (
    ZooEntry(
        "spleen_ct_segmentation",
        "0.5.9",
        "8e99230050906d0d3cec484010598aa138201892",
        task="spleen",
        modality="CT",
        network="unet",
        licence="Apache-2.0",
        data="Medical Segmentation Decathlon, Task09 (CC-BY-SA 4.0)",
        citation="Kerfoot et al. 2019, doi:10.1007/978-3-030-12029-0_40; Xia et al. 2018, arXiv:1811.12506",
    ),
    ZooEntry(
        "swin_unetr_btcv_segmentation",
        "0.5.6",
        "3b99a1e0cc2af3dd67349e4bb083ef5063b24d4f",
        task="13 abdominal organs",
        modality="CT",
        network="swin_unetr",
        licence="Apache-2.0",
        data="BTCV (Synapse syn3193805, terms on request there)",
        citation="Hatamizadeh et al. 2022, arXiv:2201.01266; Tang et al. 2021, arXiv:2111.14791",
    ),
    ZooEntry(
        "wholeBody_ct_segmentation",
        "0.2.5",
        "d3be077219fea4ac9630efddd81c19e0676bf206",
        task="104 structures of the whole body",
        modality="CT",
        network="segresnet",
        licence="Apache-2.0",
        data="TotalSegmentator v1 (Zenodo 6802614; see its terms)",
        citation="Wasserthal et al. 2022, arXiv:2208.05868; Myronenko et al. 2022, arXiv:2209.10809",
    ),
    ZooEntry(
        "pediatric_abdominal_ct_segmentation",
        "0.4.4",
        "1993fb56db14f7109ef6fccd3c2d49e7c6e8cd59",
        task="liver, spleen, pancreas of children",
        modality="CT",
        network="dynunet",
        licence="Apache-2.0",
        data="TotalSegmentator v1, BTCV, TCIA Pediatric-CT-SEG (cite doi:10.7937/TCIA.X0H0-1706), in-house",
        citation="Somasundaram et al. 2024, doi:10.2214/AJR.24.30931",
    ),
    ZooEntry(
        "brats_mri_segmentation",
        "0.5.2",
        "6b1dfef29d49c6f6a1d8bf9f65c84125ad37a6e9",
        task="3 regions of glioma",
        modality="MR",
        network="segresnet",
        licence="Apache-2.0",
        data="BraTS 2018 (for research; cite doi:10.1109/TMI.2014.2377694, doi:10.1038/sdata.2017.117)",
        citation="Myronenko 2018, arXiv:1810.11654",
        # its README states 1 x 1 x 1 mm; BraTS distributes every case in this order
        lines={"input": {"orientation": "LPS", "spacing_mm": [1.0, 1.0, 1.0]}},
    ),
    ZooEntry(
        "prostate_mri_anatomy",
        "0.3.4",
        "7ecfbacab9f03edde606479301c78b74c0eda1f4",
        task="central gland, peripheral zone of the prostate",
        modality="MR",
        network="unet",
        licence="Apache-2.0",
        data="Prostate158 (Zenodo 6481141; see its terms)",
        citation="Adams et al. 2022, Prostate158, Computers in Biology and Medicine 148, 105817",
    ),
)
"""All of them."""


def find_entry(name: str, version: str | None = None) -> ZooEntry:
    """The bundle of a name.

    Raises:
        SourceError: There is none in the table.
    """
    found = next((one for one in ZOO if one.name.casefold() == name.casefold()), None)
    if found is None:
        raise SourceError(f"no bundle is called {name!r} in the table; there are {', '.join(one.name for one in ZOO)}")
    if version is not None and version != found.version:
        raise SourceError(f"{found.name} is in the table as version {found.version} alone, not {version}")
    return found
