"""Stored values become the right numbers: signs, widths, rescale, padding, look-up tables, headers with holes."""

from __future__ import annotations

import numpy as np
import pytest
from conversion import assert_holds, convert_folder, world_values
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from transfer_syntaxes import COLUMNS, N_SLICES, ROWS, Bits, oblique_place, pattern, write_slices

PLACE = oblique_place()
MR = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", "Modality": "MR", "RescaleSlope": None, "RescaleIntercept": None}
PET = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.128", "Modality": "PT"}


def run(tmp_path, stored, **options):
    write_slices(tmp_path / "in", stored, PLACE, **options)
    return convert_folder(tmp_path / "in", tmp_path)


def found_values(found, entry=None):
    return world_values(found.image(entry), PLACE, ROWS, COLUMNS)


# ---- widths and signs


@pytest.mark.parametrize("syntax", ["explicit little", "explicit big", "deflated"])
@pytest.mark.parametrize("above", [0b0001, 0b1010, 0b1111])
@pytest.mark.parametrize("signed", [False, True])
def test_rubbish_above_the_stored_bits_is_cleared(tmp_path, syntax, above, signed):
    """Old overlays lie there (PS3.5 8.1.1 of 2003 and before)."""
    stored = pattern(12) - 2048 * signed
    found = run(tmp_path, stored, bits=Bits(signed=signed, above=above), syntax=syntax)
    assert_holds(found.image(), PLACE, stored - 1024)


@pytest.mark.parametrize("width", [1, 7, 10, 13, 15])
def test_any_number_of_stored_bits(tmp_path, width):
    stored = pattern(width) - (1 << width - 1)
    found = run(tmp_path, stored, bits=Bits(stored=width, signed=True, above=1))
    assert_holds(found.image(), PLACE, stored - 1024)


def test_unsigned_values_above_the_signed_range_with_an_intercept_that_brings_them_back(tmp_path):
    stored = pattern(16)
    assert stored.max() > 60000
    found = run(tmp_path, stored, bits=Bits(stored=16), RescaleIntercept=-32768)
    assert_holds(found.image(), PLACE, stored - 32768)


def test_unsigned_values_that_fit_no_int16(tmp_path):
    stored = pattern(16)
    found = run(tmp_path, stored, bits=Bits(stored=16), RescaleIntercept=0)
    assert_holds(found.image(), PLACE, stored)
    assert found.image().get_data_dtype() == np.float32


def test_one_late_slice_beyond_int16(tmp_path):
    """The width of the result is not decided by the first slices."""
    stored = np.minimum(pattern(12), 3000)
    stored[-1, 4, 4] = 40000
    found = run(tmp_path, stored, bits=Bits(stored=16), RescaleIntercept=0)
    assert_holds(found.image(), PLACE, stored)


@pytest.mark.parametrize("signed", [False, True])
def test_thirty_two_bits(tmp_path, signed):
    stored = pattern(20) - (300_000 if signed else 0)
    found = run(tmp_path, stored, bits=Bits(32, 32, signed), RescaleIntercept=0)
    # below 2**24 float32 holds every whole number
    assert_holds(found.image(), PLACE, stored)


def test_thirty_two_bits_over_their_whole_range(tmp_path):
    stored = pattern(32)
    found = run(tmp_path, stored, bits=Bits(32, 32), RescaleIntercept=0)
    assert_holds(found.image(), PLACE, stored, relative=2**-24)


@pytest.mark.parametrize("tags", [{"HighBit": 15}, {"HighBit": 12}, {"BitsStored": 17}, {"BitsStored": 0}])
def test_bits_that_contradict_each_other_are_refused(tmp_path, tags):
    """With HighBit 15 and BitsStored 12 the value may lie in either end of the word."""
    found = run(tmp_path, pattern(12), **tags)
    assert found.refusal["code"] == "bits"
    assert found.refusal["n_files"] == N_SLICES


# ---- rescale


@pytest.mark.parametrize(("slope", "intercept"), [(0.0625, -17.25), (-1, 300), (-0.5, 0), (2, -8192), (1e-5, 0)])
def test_slope_and_intercept(tmp_path, slope, intercept):
    stored = pattern(12)
    found = run(tmp_path, stored, RescaleSlope=slope, RescaleIntercept=intercept)
    assert_holds(found.image(), PLACE, stored * slope + intercept, relative=1e-6)


def test_whole_numbers_stay_whole(tmp_path):
    """1.0 and 1.000000 are the same slope."""
    found = run(tmp_path, pattern(12), RescaleSlope="1.000000", RescaleIntercept="-1024.0")
    assert found.image().get_data_dtype() == np.int16


def test_each_slice_has_its_own_slope(tmp_path):
    """As PET has."""
    stored = pattern(15)
    slopes = [0.51, 2.25, 0.0078125, 1.7]
    found = run(
        tmp_path, stored, bits=Bits(stored=16, signed=True), **PET,
        by_slice=lambda k: {"RescaleSlope": slopes[k], "RescaleIntercept": 0},
    )  # fmt: skip
    assert_holds(found.image(), PLACE, stored * np.array(slopes)[:, None, None], relative=1e-6)
    assert found.volume["modality"] == "PT"


def test_each_slice_has_its_own_intercept(tmp_path):
    stored = pattern(12)
    found = run(tmp_path, stored, by_slice=lambda k: {"RescaleIntercept": -1000 - k})
    assert_holds(found.image(), PLACE, stored - (1000 + np.arange(N_SLICES))[:, None, None])


def test_a_whole_slope_after_a_broken_one(tmp_path):
    """The kind of number is decided over all slices."""
    stored = pattern(12)
    slopes = np.array([1, 1, 1, 0.25])
    found = run(tmp_path, stored, by_slice=lambda k: {"RescaleSlope": float(slopes[k]), "RescaleIntercept": 0})
    assert_holds(found.image(), PLACE, stored * slopes[:, None, None], relative=1e-6)


def test_mr_without_rescale_keeps_stored_values(tmp_path):
    found = run(tmp_path, pattern(12), **MR)
    assert_holds(found.image(), PLACE, pattern(12))


@pytest.mark.parametrize(
    ("tags", "slope", "intercept"),
    [({"RescaleSlope": None}, 1, -1024), ({"RescaleIntercept": None}, 1, 0), ({"RescaleSlope": ""}, 1, -1024)],
)
def test_half_a_rescale(tmp_path, tags, slope, intercept):
    found = run(tmp_path, pattern(12), **tags)
    assert_holds(found.image(), PLACE, pattern(12) * slope + intercept)


def test_a_slope_of_zero_is_refused(tmp_path):
    assert run(tmp_path, pattern(12), RescaleSlope=0).refusal["code"] == "scaling"


# ---- padding


def padded(value, inside=None):
    """Stored values 100 to 3000 with a frame of padding, and where it lies."""
    stored = 100 + pattern(12) % 2901 if inside is None else inside
    where = np.zeros(stored.shape, dtype=bool)
    where[:, :2], where[:, -3:], where[:, :, -1] = True, True, True
    return np.where(where, value, stored), where


def assert_padding_is_told(found, stored, where, *real_values):
    """What a scanner stored is kept, so that nothing is invented; who reads the notes can mask it."""
    assert_holds(found.image(), PLACE, stored - 1024)
    (note,) = [note for note in found.volume["notes"] if "padding" in note]
    for number in (int(where.sum()), *real_values):
        assert f"{number:g}" in note.replace(",", "")


def test_padding_of_signed_pixels(tmp_path):
    """-2000 in CT: what lies outside the scanner's circle."""
    stored, where = padded(-2000)
    found = run(tmp_path, stored, bits=Bits(stored=16, signed=True), PixelPaddingValue=-2000)
    assert_padding_is_told(found, stored, where, -3024)


def test_padding_of_unsigned_pixels(tmp_path):
    """63536 has the bits of -2000, and is above all else here."""
    stored, where = padded(63536)
    found = run(tmp_path, stored, bits=Bits(stored=16), PixelPaddingValue=63536)
    assert_padding_is_told(found, stored, where, 63536 - 1024)


@pytest.mark.parametrize("syntax", ["explicit little", "explicit big", "implicit little"])
def test_padding_of_signed_pixels_written_as_unsigned(tmp_path, syntax):
    """The bits are what counts, whichever of US and SS the file says (PS3.3 C.7.5.1.1.2)."""
    stored, where = padded(-2000)

    def as_unsigned(ds: FileDataset) -> None:
        ds.add_new("PixelPaddingValue", "US", 63536)

    found = run(tmp_path, stored, bits=Bits(stored=16, signed=True), syntax=syntax, edit=as_unsigned)
    assert_padding_is_told(found, stored, where, -3024)


@pytest.mark.parametrize(("value", "limit"), [(-2000, -1990), (-1990, -2000)])
def test_a_range_of_padding(tmp_path, value, limit):
    """Both ends belong to it, in either order."""
    stored, where = padded(-2000)
    stored[where] += np.arange(int(where.sum())) % 11
    found = run(
        tmp_path, stored, bits=Bits(stored=16, signed=True), PixelPaddingValue=value, PixelPaddingRangeLimit=limit
    )
    assert_padding_is_told(found, stored, where, -3024, -3014)


def test_padding_in_a_compressed_image(tmp_path):
    stored, where = padded(-2000)
    found = run(tmp_path, stored, bits=Bits(stored=16, signed=True), syntax="jpeg-ls", PixelPaddingValue=-2000)
    assert_padding_is_told(found, stored, where, -3024)


def test_padding_in_twelve_signed_bits(tmp_path):
    """The sign of the pixels is carried up from bit 11 before they are compared."""
    stored, where = padded(-2000, pattern(12) // 4)
    found = run(tmp_path, stored, bits=Bits(signed=True, above=0b0101), PixelPaddingValue=-2000)
    assert_padding_is_told(found, stored, where, -3024)


def test_padding_with_a_slope_of_each_slice(tmp_path):
    stored, where = padded(0)
    slopes = np.array([0.5, 2.0, 1.5, 3.0])
    found = run(
        tmp_path, stored, PixelPaddingValue=0, RescaleIntercept=0, **PET,
        by_slice=lambda k: {"RescaleSlope": float(slopes[k])},
    )  # fmt: skip
    assert_holds(found.image(), PLACE, stored * slopes[:, None, None], relative=1e-6)
    assert any("padding" in note and str(int(where.sum())) in note for note in found.volume["notes"])


def test_padding_named_but_absent(tmp_path):
    stored = 100 + pattern(12) % 2901
    found = run(tmp_path, stored, bits=Bits(stored=16, signed=True), PixelPaddingValue=-2000)
    assert_holds(found.image(), PLACE, stored - 1024)
    assert not any("padding" in note for note in found.volume["notes"])


# ---- MONOCHROME1


def test_monochrome1_keeps_stored_values_and_says_so(tmp_path):
    found = run(tmp_path, pattern(12), PhotometricInterpretation="MONOCHROME1")
    assert_holds(found.image(), PLACE, pattern(12) - 1024)
    assert found.volume["photometric"] == "MONOCHROME1"
    assert any("MONOCHROME1" in note for note in found.volume["notes"])


def test_monochrome2_is_in_the_index(tmp_path):
    assert run(tmp_path, pattern(12)).volume["photometric"] == "MONOCHROME2"


# ---- modality look-up table


def table(entries, first, entry_bits=16, as_words=True, signed_first=False):
    """A ModalityLUTSequence that replaces slope and intercept."""

    def edit(ds: FileDataset) -> None:
        item = Dataset()
        count = len(entries) % 65536
        item.add_new("LUTDescriptor", "SS" if signed_first else "US", [count, first, entry_bits])
        item.ModalityLUTType = "HU"
        if as_words:
            item.add_new("LUTData", "OW", np.asarray(entries, dtype="<u2").tobytes())
        else:
            item.add_new("LUTData", "OW", bytes(entries))
        ds.ModalityLUTSequence = Sequence([item])

    return edit


NO_RESCALE = {"RescaleSlope": None, "RescaleIntercept": None}


def looked_up(stored, entries, first):
    """PS3.3 C.11.1.1.1: below the first the first entry, above the last the last."""
    return np.asarray(entries)[np.clip(stored - first, 0, len(entries) - 1)]


@pytest.mark.parametrize("syntax", ["explicit little", "implicit little", "explicit big", "jpeg 2000 lossless"])
@pytest.mark.parametrize("kind", [{}, MR])
def test_modality_table_clamped_at_both_ends(tmp_path, syntax, kind):
    stored = pattern(12, (37, 34))
    entries = (np.arange(3000) * 7 + 11) % 9000

    def edit(ds: FileDataset) -> None:
        table(entries, 500)(ds)
        if syntax == "explicit big":
            ds.ModalityLUTSequence[0]["LUTData"].value = entries.astype(">u2").tobytes()

    found = run(tmp_path, stored, syntax=syntax, edit=edit, **{**kind, **NO_RESCALE})
    assert stored.min() < 500
    assert stored.max() > 3500
    assert_holds(found.image(), PLACE, looked_up(stored, entries, 500))
    assert "table" in found.volume["scaling"]


def test_modality_table_of_65536_entries(tmp_path):
    """Their number does not fit the descriptor: 0 stands for it."""
    stored = pattern(16)
    entries = (np.arange(65536) * 3) % 65536
    found = run(tmp_path, stored, bits=Bits(stored=16), edit=table(entries, 0), **NO_RESCALE)
    assert_holds(found.image(), PLACE, looked_up(stored, entries, 0))


@pytest.mark.parametrize("as_words", [True, False])
def test_modality_table_of_eight_bit_entries(tmp_path, as_words):
    """One a word, or two packed into each: the length tells."""
    stored = pattern(8)
    entries = (255 - np.arange(256)) // 2
    edit = table(entries.tolist(), 0, entry_bits=8, as_words=as_words)
    found = run(tmp_path, stored, bits=Bits(8, 8), edit=edit, **NO_RESCALE)
    assert_holds(found.image(), PLACE, looked_up(stored, entries, 0))


@pytest.mark.parametrize("syntax", ["explicit little", "implicit little", "explicit big"])
def test_modality_table_as_numbers(tmp_path, syntax):
    """The data may have the representation US in place of OW."""
    stored = pattern(12)
    entries = (np.arange(4096) * 13) % 50000

    def edit(ds: FileDataset) -> None:
        table(entries, 0)(ds)
        ds.ModalityLUTSequence[0].add_new("LUTData", "US", entries.tolist())

    found = run(tmp_path, stored, syntax=syntax, edit=edit, **NO_RESCALE)
    assert_holds(found.image(), PLACE, looked_up(stored, entries, 0))


def test_modality_table_beside_a_rescale(tmp_path):
    """One of the two is given by the standard; where both are, the table is the one that replaces."""
    entries = np.arange(4096) * 2
    found = run(tmp_path, pattern(12), edit=table(entries, 0))
    assert_holds(found.image(), PLACE, looked_up(pattern(12), entries, 0))


def test_modality_table_of_one_slice_alone(tmp_path):
    """Each slice has its own way from stored to real."""
    entries = np.arange(4096) * 2

    def edit(ds: FileDataset) -> None:
        if ds.InstanceNumber == 1:
            table(entries, 0)(ds)
            del ds.RescaleSlope, ds.RescaleIntercept

    found = run(tmp_path, pattern(12), edit=edit)
    expected = pattern(12) - 1024
    expected[-1] = looked_up(pattern(12)[-1], entries, 0)
    assert_holds(found.image(), PLACE, expected)


def test_modality_table_that_starts_below_zero(tmp_path):
    """The first value mapped has the sign of the pixels (PS3.3 C.11.1.1)."""
    stored = pattern(12) - 2048
    entries = np.arange(4000) * 2
    found = run(tmp_path, stored, bits=Bits(signed=True), edit=table(entries, -1500, signed_first=True), **NO_RESCALE)
    assert_holds(found.image(), PLACE, looked_up(stored, entries, -1500))


def test_first_value_written_as_unsigned_though_the_pixels_are_signed(tmp_path):
    stored = pattern(12) - 2048
    entries = np.arange(4000) * 2
    found = run(tmp_path, stored, bits=Bits(signed=True), edit=table(entries, 65536 - 1500), **NO_RESCALE)
    assert_holds(found.image(), PLACE, looked_up(stored, entries, -1500))


def test_modality_table_shorter_than_its_descriptor_is_refused(tmp_path):
    def edit(ds: FileDataset) -> None:
        table(np.arange(100), 0)(ds)
        ds.ModalityLUTSequence[0].LUTDescriptor = [4096, 0, 16]

    found = run(tmp_path, pattern(12), edit=edit, **NO_RESCALE)
    assert found.volumes == []
    assert {one["code"] for one in found.rejected} == {"lookup_table"}


# ---- headers with holes

OPTIONAL = (
    "InstanceNumber", "SliceThickness", "FrameOfReferenceUID", "SOPClassUID", "SeriesInstanceUID",
    "StudyInstanceUID", "PatientID", "PatientName", "Modality", "ImageType", "PhotometricInterpretation",
    "SamplesPerPixel", "HighBit", "PixelRepresentation", "Manufacturer", "InstitutionName",
)  # fmt: skip


def without(*keywords, blank=False):
    """Attributes taken out, or left empty as anonymisers do; the file meta group keeps its own."""

    def edit(ds: FileDataset) -> None:
        for keyword in keywords:
            if blank:
                setattr(ds, keyword, None)
            elif keyword in ds:
                delattr(ds, keyword)

    return edit


@pytest.mark.parametrize("keyword", [*OPTIONAL, "SOPInstanceUID"])
def test_one_attribute_absent(tmp_path, keyword):
    found = run(tmp_path, pattern(12), edit=without(keyword))
    assert_holds(found.image(), PLACE, pattern(12) - 1024)
    assert (found.volume["n_files"], found.volume["modality"]) == (N_SLICES, "CT")


@pytest.mark.parametrize("keyword", [*OPTIONAL, "SOPInstanceUID"])
def test_one_attribute_blank(tmp_path, keyword):
    found = run(tmp_path, pattern(12), edit=without(keyword, blank=True))
    assert_holds(found.image(), PLACE, pattern(12) - 1024)
    assert (found.volume["n_files"], found.volume["modality"]) == (N_SLICES, "CT")


@pytest.mark.parametrize("syntax", ["explicit little", "implicit little", "deflated", "rle"])
def test_all_optional_attributes_absent(tmp_path, syntax):
    kept = [keyword for keyword in OPTIONAL if keyword not in ("SOPClassUID", "Modality")]
    found = run(tmp_path, pattern(12), syntax=syntax, edit=without(*kept))
    assert_holds(found.image(), PLACE, pattern(12) - 1024)


def test_identifiers_absent_from_the_file_meta_group_too(tmp_path):
    def edit(ds: FileDataset) -> None:
        without("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "PatientID")(ds)
        del ds.file_meta.MediaStorageSOPInstanceUID

    found = run(tmp_path, pattern(12), edit=edit)
    assert found.volume["n_slices"] == N_SLICES
    assert_holds(found.image(), PLACE, pattern(12) - 1024)


def test_bits_stored_absent(tmp_path):
    found = run(tmp_path, pattern(16), bits=Bits(stored=16), edit=without("BitsStored", "HighBit"))
    assert_holds(found.image(), PLACE, pattern(16) - 1024)


@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [("1.2.840.10008.5.1.4.1.1.2", "CT"), ("1.2.840.10008.5.1.4.1.1.4", "MR"), ("1.2.840.10008.5.1.4.1.1.128", "PT")],
)
def test_modality_by_the_kind_of_object(tmp_path, sop_class, modality):
    found = run(tmp_path, pattern(12), SOPClassUID=sop_class, Modality=None)
    assert found.volume["modality"] == modality


def test_neither_modality_nor_kind_of_object(tmp_path):
    """A number of unknown meaning must not be called CT."""

    def edit(ds: FileDataset) -> None:
        without("Modality", "SOPClassUID")(ds)
        del ds.file_meta.MediaStorageSOPClassUID

    found = run(tmp_path, pattern(12), edit=edit)
    assert found.volumes == []
    assert any("Modality" in one["reason"] for one in found.rejected)


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_geometry_is_not_optional(tmp_path, keyword):
    found = run(tmp_path, pattern(12), edit=without(keyword))
    assert found.refusal["code"] == "missing_geometry"
    assert keyword in found.refusal["reason"]


@pytest.mark.parametrize("keyword", ["Rows", "Columns", "PixelData"])
def test_neither_are_size_and_pixels(tmp_path, keyword):
    found = run(tmp_path, pattern(12), edit=without(keyword))
    assert found.volumes == []
    assert found.rejected


def test_a_file_without_the_mark_of_part_10_is_named(tmp_path):
    write_slices(tmp_path / "in", pattern(12), PLACE)
    for path in (tmp_path / "in").iterdir():
        path.write_bytes(path.read_bytes()[132:])
    found = convert_folder(tmp_path / "in", tmp_path)
    assert {one["code"] for one in found.rejected} == {"not_dicom"}
    assert len(found.rejected) == N_SLICES
