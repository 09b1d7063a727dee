"""Hostile and ill-encoded texts where a reader expects identifiers and names."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from damage import Outcome, damaged, refused, setting, spoil_all
from dicom_bytes import CANARY, TOKEN, file_bytes, new_series, save, text, write_series

PATIENT, INSTANCE, SERIES, STUDY, FRAME = 0x00100020, 0x00080018, 0x0020000E, 0x0020000D, 0x00200052
RELATIVE = f"../../../../tmp/x{TOKEN}"
ABSOLUTE = f"/tmp/escape{TOKEN}/x"


def _identified(name: str, hostile: bytes, *tags: int, long: bool = False) -> None:
    """A good series in which identifiers are hostile; its volume must come out, under a name of our own."""

    def make(folder: Path, rng: np.random.Generator) -> list[Outcome]:
        series = new_series(rng)
        slices = series.slices
        for k, one in enumerate(slices):
            for tag in tags:
                value = hostile + str(k).encode() if tag == INSTANCE else hostile
                one[tag] = ("UT" if long else one[tag][0], value + b" " * (len(value) % 2))
        write_series(folder, slices)
        return [(series.grid(),)]

    make.__name__ = name
    damaged(make)


ALL = (PATIENT, INSTANCE, SERIES, STUDY, FRAME)
_identified("patient_id_climbs", RELATIVE.encode(), PATIENT)
_identified("instance_uid_climbs", RELATIVE.encode(), INSTANCE)
_identified("series_uid_climbs", RELATIVE.encode(), SERIES)
_identified("study_uid_climbs", RELATIVE.encode(), STUDY)
_identified("frame_of_reference_climbs", RELATIVE.encode(), FRAME)
_identified("patient_id_absolute", ABSOLUTE.encode(), PATIENT)
_identified("series_uid_absolute", ABSOLUTE.encode(), SERIES)
_identified("all_identifiers_absolute", f"{ABSOLUTE}/all".encode(), *ALL)
_identified("identifiers_with_backslashes", f"..\\..\\{TOKEN}".encode(), *ALL)
_identified("identifiers_with_nul", f"{TOKEN}\0/tmp/x".encode(), *ALL)
_identified("identifiers_with_newlines", f"{TOKEN}\n{TOKEN}\r\n\x1b[31m".encode(), *ALL)
_identified("identifiers_right_to_left", f"{TOKEN}\u202egpj.x\u2066".encode(), *ALL)
_identified("identifiers_of_emoji", f"{TOKEN}\U0001f480\u200d\U0001f480".encode(), *ALL)
_identified("identifiers_reserved", b"CON", *ALL)
_identified("identifiers_of_dots", b"..", *ALL)
_identified("identifiers_that_format", f"{{0.__class__}}{{case}}%s%n${{HOME}}$(touch x{TOKEN})`id`".encode(), *ALL)
_identified("identifiers_of_lone_bytes", TOKEN.encode() + b"\xff\xfe\xc3\x28\xed\xa0\x80", *ALL)
_identified("identifiers_of_64_kib", TOKEN.encode() + b"9" * 65_000, *ALL)
_identified("identifiers_of_a_megabyte", TOKEN.encode() + b"9" * (1 << 20), PATIENT, long=True)


@damaged
def identifiers_blank(folder, rng):
    blank = ("UI", b"")
    change = setting(x00080018=blank, x0020000D=blank, x0020000E=blank, x00200052=blank, x00100020=("LO", b""))
    return [(spoil_all(folder, rng, change).grid(),)]


@damaged
def identifiers_absent(folder, rng):
    change = setting(
        x00080016=None, x00080018=None, x0020000D=None, x0020000E=None, x00200052=None, x00100020=None, x00100010=None
    )
    return [(spoil_all(folder, rng, change).grid(),)]


@damaged
def identifiers_of_two_values(folder, rng):
    change = setting(
        x0020000D=("UI", text(f"1.{TOKEN}.1", f"1.{TOKEN}.2")), x0020000E=("UI", text(f"1.{TOKEN}.3", f"1.{TOKEN}.4")),
        x00100020=("LO", text(CANARY, CANARY)),
    )  # fmt: skip
    return [(spoil_all(folder, rng, change).grid(),)]


@damaged
def canaries_where_words_are_copied(folder, rng):
    """Modality, image type, device, kernel and units are shown in outputs: only known or plain words may pass."""
    name = text(CANARY)
    change = setting(
        x00080060=("CS", name), x00080008=("CS", text("ORIGINAL", "PRIMARY", CANARY)), x00080070=("LO", name),
        x00081090=("LO", name), x00181210=("SH", name), x00281054=("LO", name), x00180015=("CS", name),
        x00081030=("LO", name), x00200012=("IS", text(CANARY[:12])), x00180040=("IS", text(CANARY[:12])),
        x00189073=("FD", b"\0" * 8), x00080032=("TM", name), x00180020=("CS", name), x00180024=("SH", name),
    )  # fmt: skip
    series = spoil_all(folder, rng, change)
    return [(series.grid(),), (refused("series", "modality mixed_kind other_object damaged", "odality"),)]


@damaged
def canaries_where_a_series_is_split(folder, rng):
    """What tells two volumes of a series apart is text from the files; the index must not repeat it."""
    series, other = new_series(rng), new_series(rng)
    slices = [*series.slices]
    for k, one in enumerate(other.slices):
        one[SERIES], one[STUDY], one[FRAME] = slices[k][SERIES], slices[k][STUDY], slices[k][FRAME]
        one[PATIENT] = slices[k][PATIENT]
        one[0x00080008] = ("CS", text("ORIGINAL", "PRIMARY", CANARY, "BONE"))
        slices.append(one)
    write_series(folder, slices)
    return [(series.grid(), other.grid()), (refused("series", "duplicate_position", "slices"),)]


def _charset(name: str, charset: bytes, patient: bytes) -> None:
    def make(folder: Path, rng: np.random.Generator) -> list[Outcome]:
        change = setting(
            x00080005=("CS", charset + b" " * (len(charset) % 2)), x00100010=("PN", patient + b" " * (len(patient) % 2))
        )
        return [(spoil_all(folder, rng, change).grid(),)]

    make.__name__ = name
    damaged(make)


WHO = CANARY.encode()
_charset("charset_unknown", b"ISO_IR 9999", WHO + b"^M\xfcller")
_charset("charset_of_text", WHO, WHO)
_charset("charset_invalid_bytes", b"ISO_IR 192", WHO + b"^\xff\xfe\xc3\x28")
_charset(
    "charset_escape_garbage", b"\\ISO 2022 IR 87\\ISO 2022 IR 149", WHO + b"^\x1b$B\xff\xff\x1b\x1b(Q\x1b$)C\x80=\x1b"
)
_charset("charset_contradictory", b"ISO_IR 192\\ISO 2022 IR 87\\GB18030", WHO + b"^\x1b$B;3ED")
_charset("charset_of_numbers", b"1\\\\\\2", WHO + b"=\x80\x81=\x1b")


def _named(name: str, file_name: bytes) -> None:
    """A good series whose files have hostile names."""

    def make(folder: Path, rng: np.random.Generator) -> list[Outcome]:
        series = new_series(rng)
        for k, one in enumerate(series.slices):
            path = os.path.join(os.fsencode(folder), bytes([65 + k]) + file_name)
            save(Path(os.fsdecode(path)), file_bytes(one))
        return [(series.grid(),)]

    make.__name__ = name
    damaged(make)


_named("file_names_not_utf8", b"\xff\xfe\xc3\x28" + WHO + b".dcm")
_named("file_names_with_newlines", b"\n\r\t\x1b[2J" + WHO)
_named("file_names_of_255_bytes", WHO + b"x" * (254 - len(WHO)))
_named("file_names_with_a_dash", b" -rf --key-file=" + WHO)


@damaged
def bad_file_with_a_hostile_name(folder, rng):
    path = os.path.join(os.fsencode(folder), b"\xff\n" + WHO + b"\xed\xa0\x80.dcm")
    save(Path(os.fsdecode(path)), rng.bytes(100))
    return [(refused("file", "not_dicom", "DICM mark|not DICOM"),)]
