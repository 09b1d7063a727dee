"""Closed lists of words that identify nobody. A text made of other words does not leave in a de-identified object."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import permutations

from monai_tl.dicom.identity import shares_word

_TERMS = """
YES NO Y N NONE FILTER BODY PARTIALBODY FAST_GEMS FC_SLICE_AX_GEMS FC_FREQ_AX_GEMS PHASE_WRAP UNKNOWN OTHER ON OFF
MIXED UNDEFINED USER CT MR PT SEG RTSTRUCT ORIGINAL DERIVED PRIMARY SECONDARY AXIAL LOCALIZER MOSAIC M P R I MAGNITUDE
PHASE REAL IMAGINARY M_FFE P_FFE R_FFE I_FFE M_SE P_SE R_SE I_SE M_IR P_IR R_IR I_IR ND NORM DIS2D DIS3D MFSPLIT FFE SE
IR T1 T2 T2_STAR T2* PD R1 R2 R2_STAR ADC FA TRACEW TRACE EADC EPI DIFFUSION PERFUSION FM2 FM4 FM MPR CSA MPRAGE
RESAMPLED REFORMATTED CURVED AVERAGE AVERAGED COMPRESSED MIN_IP MAX_IP MEAN VOLUME SAMPLED DISTORTED SUBTRACTION
ADDITION MASKED MULTIPLICATION DIVISION QUANT MTT CBF CBV RCBV RCBF TTP TMAX PROPDENS WATER FAT IN_PHASE OUT_PHASE
OPP_PHASE OPPOSED_PHASE IN OUT W F FF IP OP ANGIO TOF CARDIAC STRESS REST STATIC DYNAMIC GATED WHOLE_BODY WHOLE IMAGE
REPROJECTION HELIX HELICAL SPIRAL SEQUENCED CONSTANT_ANGLE STATIONARY FREE CINE CINE_CARDIAC VIRTUAL_MONOENERGETIC
MONOENERGETIC ENERGY_PROP_WT MAT_SPECIFIC MAT_REMOVED MAT_FRACTIONAL MAT_VALUE_BASED CT_SOM5 CT_SOM7 SPI SPIRAL_AXIAL
ASL SWI SWAN PHASE_CONTRAST PCA VELOCITY VELOCITY_MAP FLOW_ENCODED FLUID_ATTENUATED SHORT_TAU_IR STIR TAGGING
TEMPERATURE DIXON RELAXIVITY OXY PROJECTION SPECTROSCOPY SPECTRO METABOLITE_MAP MONOCHROME1 MONOCHROME2 PALETTE COLOR
PALETTE_COLOR MONOCHROME TRUE_COLOR HFS HFP FFS FFP HFDR HFDL FFDR FFDL HFV FFV LFS LFP RFS RFP AFS AFP PFS PFP SITTING
L B U FOR_PRESENTATION FOR_PROCESSING PRESENTATION PROCESSING FOR 00 01 ISO_10918_1 ISO_14495_1 ISO_15444_1
ISO_15444_15 PRODUCT RESEARCH SERVICE IDENTITY INVERSE LINEAR LINEAR_EXACT SIGMOID HU HU_MOD US OD MGML Z_EFF ED EDW
PCT SIGNAL 1D 2D 3D ROW COLUMN COL ROW_AND_COLUMN SS SK MP OSP SP MTC TRSS EP GR RM STEADY_STATE SPOILED TIME_REVERSED
GR_EPI PER RG CG PPG FC PFF SFS CGS RESP_GATED FAST_CARD VB SAT_GEMS FSA_GEMS FSI_GEMS IFLOW_GEMS ACC_GEMS EDR_GEMS
FILTERED_GEMS NPW FS FR SAT1 SAT2 PFC PROSPECTIVE RETROSPECTIVE PACED REALTIME REAL_TIME MULTIPLE SINGLE PRESPOILED
FATSAT SPIRAL_MODE HELICAL_MODE AXIAL_MODE SCOUT_MODE CINE_MODE MODE SCOUT SPOILING BREATH_HOLD NAVIGATOR BELT
RESPIRATORY RF GRADIENT RF_AND_GRADIENT TRANSVERSE LONGITUDINAL BOTH CARTESIAN RADIAL RECTILINEAR REVERSE_LINEAR
CENTRIC SEGMENTED REVERSE_CENTRIC PARTIAL FULL COMBINATION HAMMING SINC GAUSSIAN RIESZ ELLIPSOIDAL ACCELERATION
FREQUENCY SLICE_SELECT SLICE_AND_FREQ PILS SENSE SMASH GRAPPA MSENSE CAIPIRINHA ON_RESONANCE OFF_RESONANCE
WATER_AND_FAT SLAB GRID LINE TAG FAT_AND_WATER DIRECTIONAL BMATRIX ISOTROPIC CONTROL LABEL M_ZERO_SCAN CROSSED
CONTINUOUS PSEUDOCONTINUOUS PULSED IEC FDA MHW IEC_WHOLE_BODY IEC_PARTIAL_BODY IEC_HEAD IEC_LOCAL DB_DT ELECTRIC_FIELD
PER_NERVE_STIM FIELD NORMAL IEC_NORMAL IEC_FIRST_LEVEL IEC_SECOND_LEVEL SURFACE HEAD EXTREMITY MULTICOIL TRIGGERED ECG
VCG PP PULSE END_SYSTOLE END_DIASTOLE END_INSP END_EXP INSPIRATION EXPIRATION MAXIMUM START_RESPIR END_RESPIR
REALIGNMENT TRIGGER TIME AMPLITUDE BAND NAV RETRO_BINNED RESP_BINNED CW CC IODINE GADOLINIUM CARBON_DIOXIDE BARIUM
XENON PRE_CONTRAST POST_CONTRAST ARTERIAL PORTAL_VENOUS VENOUS DELAYED IMMEDIATE EXCRETORY FILTER_BACK_PROJ ITERATIVE
FILTERED BACK SOFT_TISSUE LUNG BONE INNER_EAR BRAIN STANDARD SPECIAL DETAIL EDGE SHARP SMOOTH SOFT MEDIUM ULTRA_SHARP
WEDGE BUTTERFLY STRIP MOLYBDENUM ALUMINUM COPPER TIN LEAD FLAT BOWTIE XYZ_EC XY_EC Z_EC ANGULAR CURVED_DETECTOR
ELLIPTICAL CYLINDRICAL_RING CYLINDRICAL_RING_PARTIAL MULTIPLE_PLANAR STEP_AND_SHOOT WOBBLE CLAMSHELL BQML CNTS PROPCNTS
GML CM2ML CM2 MGMINML UMOLMINML MLMING MLG 1CM UMOLML PROPCPS MLMINML MLML STDDEV SUV SUVBW SUVLBM SUVIBW SUVBSA BW LBM
BSA IBW LBMJAMES128 LBMJANMA EMISSION TRANSMISSION SIMULTANEOUS DLYD SING START ADMIN DECY ATTN SCAT DTIM MOTN CAL RAN
RADL DCAL NRGY DELAYED_EVENTS SINGLES MEASURED CALCULATED MODEL CONVOLUTION DUAL_ENERGY RING DENS DENSITY TIME_FILLED
MANUAL AUTO COUNTS RDD CTR TRIG CYLINDRICAL HEXAGONAL RECTANGULAR CIRCULAR SQUARE FOV ECG_GATED OSEM BINARY FRACTIONAL
LABELMAP PROBABILITY OCCUPANCY AUTOMATIC SEMIAUTOMATIC 3D_TEMPORAL TILED_FULL TILED_SPARSE REORIENTED_ONLY POINT
OPEN_PLANAR OPEN_NONPLANAR CLOSED_PLANAR CLOSEDPLANAR_XOR EXTERNAL PTV CTV GTV TREATED_VOLUME IRRAD_VOLUME BOLUS
AVOIDANCE ORGAN MARKER REGISTRATION ISOCENTER CONTRAST_AGENT CAVITY BRACHY_CHANNEL BRACHY_ACCESSORY BRACHY_SRC_APP
BRACHY_CHNL_SHLD SUPPORT FIXATION DOSE_REGION DOSE_MEASUREMENT SAME ENCLOSED ENCLOSING REL_ELEC_DENSITY
REL_MASS_DENSITY EFFECTIVE_Z EFF_Z_PER_A REL_STOP_RATIO ELEM_FRACTION MEAN_EXCI_ENERGY HOMOGENEOUS APPROVED UNAPPROVED
REJECTED TRANSCRIBED SOURCE PASSTHRU SEGMENTATION 1H 3HE 7LI 13C 19F 23NA 31P 129XE CINE2 CAIPI NOISE GAMMA MINIP MIP
MAXIP SYNTHETIC SYNTH VFA ABDOMEN ABDOMENPELVIS ADRENAL ANKLE ANUS AORTA ARM AXILLA BLADDER BREAST BRONCHUS BUTTOCK
CALCANEUS CALF CAROTID CEREBELLUM CSPINE CTSPINE CHEEK CHEST CHESTABDOMEN CHESTABDPELVIS CIRCLEOFWILLIS CLAVICLE COCCYX
COLON CORNEA CORONARYARTERY DUODENUM EAR ELBOW WHOLEBODY ESOPHAGUS EYE EYELID FACE FEMUR FINGER FOOT GALLBLADDER HAND
HEADNECK HEART HIP HUMERUS ILEUM ILIUM IAC JAW JAWREGION JEJUNUM KIDNEY KNEE LARYNX LEG LIVER LSPINE LSSPINE LUMBAR
MAXILLA MEDIASTINUM MOUTH NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV NOSE ORBIT OVARY PANCREAS PAROTID PATELLA
PELVIS PENIS PHARYNX PROSTATE RECTUM RIB SSPINE SCALP SCAPULA SCLERA SCROTUM SHOULDER SKULL SPINE SPLEEN STERNUM
STOMACH SUBMANDIBULAR TMJOINT TESTIS THIGH THUMB THYMUS THYROID TLSPINE TOE TONGUE TRACHEA TSPINE UPRCTRUNK URETER
URETHRA UTERUS VAGINA VULVA WRIST ZYGOMA
"""
_DEVICES = """
SIEMENS HEALTHINEERS HEALTHCARE GE MEDICAL SYSTEMS PHILIPS TOSHIBA CANON HITACHI FUJIFILM UIH UNITED IMAGING SHIMADZU
NEUSOFT VARIAN ELEKTA ACCURAY MIM RAYSTATION RAYSEARCH BRAINLAB CERR QIICR DCMQI HIGHDICOM MONAI_TL SLICER PLASTIMATCH
SOMATOM SENSATION EMOTION DEFINITION FLASH EDGE FORCE DRIVE AS AS+ PERSPECTIVE SCOPE SPIRIT VOLUME ZOOM X CITE GO TOP
ALL NOW UP NAEOTOM ALPHA CONFIDENCE BIOGRAPH VISION MCT HOREX MMR TRUEPOINT BIOGRAPH40 BIOGRAPH64 BIOGRAPH128 40 64 128
BIOGRAPH40_MCT 4R BIOGRAPH64_MCT BIOGRAPH128_MCT LIGHTSPEED ULTRA VCT QX/I PRO16 PRO32 PLUS RT RT16 XTRA BRIGHTSPEED
ELITE HISPEED HISPEED/I NX/I DISCOVERY MI STE ST RX LS 690 710 IQ CT CT750 HD OPTIMA CT520 CT540 CT580 CT660 REVOLUTION
EVO APEX MAXIMA BRILLIANCE BRILLIANCE16 BRILLIANCE64 ICT INGENUITY CORE IQON SPECTRAL BIG BORE MX8000 IDT GEMINI TF TOF
VEREOS AQUILION ONE PRIME SP LB PRECISION GENESIS ASTEION ACTIVION CELESTEION SCENARIA SUPRIA MAGNETOM AVANTO
AVANTO_FIT AERA AMIRA ALTEA ESPREE ESSENZA SEMPRA SOLA SKYRA SKYRA_FIT SPECTRA PRISMA PRISMA_FIT TRIO TRIOTIM TIM VERIO
VIDA LUMINA SYMPHONY SYMPHONYTIM SONATA HARMONY CONCERTO ALLEGRA TERRA TERRA.X CONNECTOM SIGNA EXCITE HDX HDXT HDE HDI
ARCHITECT ARTIST PREMIER PIONEER VOYAGER EXPLORER CREATOR MR MR355 MR360 MR450 MR450W MR750 MR750W GENESIS_SIGNA 1.5T
3T 3.0T GYROSCAN INTERA ACHIEVA DSTREAM INGENIA AMBITION ELITION PANORAMA MULTIVA HFO VANTAGE TITAN ELAN ORIAN GALAN
TITAN3T EXCELART ECHELON OASIS AIRIS APERTO STANDARD SOFT LUNG BONE BONEPLUS DETAIL CHEST ASIR ADAPTIVE SMOOTH SHARP
NONE A B C D E F L YA YB YC UA UB UC
"""
# e.g. B30f, Br40d\\3, FC18, I31s: a group of letters, two digits, letters
_KERNEL = re.compile(r"[A-Z][A-Za-z]{0,2}[0-9]{2}[a-z]{0,2}")
_SHORT_NUMBER = re.compile(r"[0-9]{1,2}")
_MOST_DIGITS = _MOST_LETTERS = 2
_MATTER = re.compile(r"\b(?:white|gr[ae]y)[ _-]+matter\b", re.IGNORECASE)
_RADIOTHERAPY = """
roi gtv ctv ptv itv igtv ictv prv oar oars rt lt l r left right total boost dose gy pre post ring couch table outline
contour contours external body tumour tumours tumor lesion mass nodule oesophagus brainstem cochlea lens bowel bag
loops small large cauda equina lymphnode lymphnodes nodes node hippocampus hippocampi optic chiasm ventricles vertebra
vertebrae organ organs ctvn ctvp gtvn gtvp ptvn ptvp eval opt sub minus plus high low risk cm mm haemorrhage oedema
background foreground vessel vessels lad svc ivc pa la lv ra rv wm gm csf et tc wt ncr net ed enhancing necrotic core
"""
_PERSONS = frozenset(("male", "female", "white", "gray", "grey", "black", "patient", "subject", "single", "normal"))
# eponyms of anatomy are surnames
_SURNAMES = frozenset(
    ("boyd", "dodd", "willis", "cockett", "couinaud", "fleischner", "giacomini", "hunterian", "kerley", "model", "mark")
)
_STRUCTURE_GROUPS = frozenset(
    (4, 4028, 4030, 4031, 4040, 7140, 9502, 9503, 9514, *range(7150, 7172), *range(7184, 7201))
)
"""Context groups of DICOM PS3.16: anatomic regions, segmentation categories and types, radiotherapy structures."""

TERMS = frozenset(_TERMS.split())
"""Terms of the standard and of makers for code strings, body parts of CID 4 among them."""
ORIENTATIONS = frozenset(
    "".join(letters)
    for count in (1, 2, 3)
    for letters in permutations("APLRHF", count)
    if not any({*pair} <= {*letters} for pair in ("AP", "LR", "HF"))
)
DEVICES = frozenset(_DEVICES.split())


def is_term(text: str) -> bool:
    """Whether a code string consists of words of the list."""
    words = text.split(" ")
    return text in ORIENTATIONS or (text != "" and all(word in TERMS for word in words) and not _are_letters(words))


def is_device(text: str, identity: Iterable[str]) -> bool:
    """Whether the name of a maker, model or kernel consists of known words, none of them of the patient's identity."""
    words = text.upper().replace(",", " ").split()
    if not text.isascii() or not words or sum(map(_is_digit, words)) > _MOST_DIGITS or _are_letters(words):
        return False
    return all(word in DEVICES or _is_digit(word) for word in words) and not _repeats(text, identity)


def is_kernel(text: str, identity: Iterable[str]) -> bool:
    """Whether a reconstruction kernel is known, or looks as kernels do, and repeats no identity."""
    return is_device(text, identity) or (_KERNEL.fullmatch(text) is not None and not _repeats(text, identity))


def is_structure(text: str, identity: Iterable[str]) -> bool:
    """Whether a name of a region consists of words of anatomy and radiotherapy, and repeats no identity.

    One number of two digits may stand among them: two could be a date, or an age and a year.

    Args:
        text: E.g. ``GTV-1`` or ``Lung_L``.
        identity: Words that tell who the patient is.
    """
    if not text.isascii() or re.search(r"[^A-Za-z0-9 _.,+()/-]", text):
        return False
    # LungLeft → Lung Left; GTVp1 → GTVp 1
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    # white and grey are of the brain only before matter: else they are people's
    words = re.findall(r"[A-Za-z]+|[0-9]+", _MATTER.sub("matter", spaced))
    if not words or sum(word.isdigit() for word in words) > 1 or _are_letters(words):
        return False
    known = structure_words()
    fine = all(
        _SHORT_NUMBER.fullmatch(word) or word.lower() in known or word.lower().removesuffix("s") in known
        for word in words
    )
    return fine and not _repeats(text, identity)


def _repeats(text: str, identity: Iterable[str]) -> bool:
    # a name may stand there letter by letter
    return shares_word(f"{text} {re.sub('[^A-Za-z0-9]', '', text)}", identity)


def _are_letters(words: Sequence[str]) -> bool:
    """Whether there are so many single letters that they could spell a word."""
    return sum(len(word) == 1 and word.isalpha() for word in words) > _MOST_LETTERS


def _is_digit(word: str) -> bool:
    return len(word) == 1 and word.isdigit()


@cache
def structure_words() -> frozenset[str]:
    """Words of the meanings of DICOM's own codes for anatomy and segments, and of radiotherapy."""
    found = {
        word
        for codes in _concepts().values()
        for entries in codes.values()
        for meaning, groups in entries.values()
        if not _STRUCTURE_GROUPS.isdisjoint(groups)
        for word in re.findall("[a-z]+", meaning.lower())
    }
    return frozenset(found | set(_RADIOTHERAPY.split())) - _SURNAMES - _PERSONS


def known_code(scheme: str, value: str) -> str | None:
    """The meaning of a code in the lists of DICOM PS3.16, None when it is in none of them.

    Args:
        scheme: Designator, e.g. ``SCT``; the old SNOMED codes (SRT, SNM3, 99SDM) are known too.
        value: The code.
    """
    return _meanings().get((scheme, value))


@cache
def _meanings() -> dict[tuple[str, str], str]:
    from pydicom.sr._snomed_dict import mapping

    ranked: dict[tuple[str, str], tuple[bool, int, str]] = {}
    for scheme, codes in _concepts().items():
        for entries in codes.values():
            for value, (meaning, groups) in entries.items():
                # one code has several meanings in the lists: one of a context group, the plainest, whatever their order
                rank = (not groups, len(meaning), meaning)
                ranked[(scheme, value)] = min(ranked.get((scheme, value), rank), rank)
    found = {code: meaning[:64].strip() for code, (_, _, meaning) in ranked.items() if meaning.isascii()}
    old = {
        (scheme, before): found[("SCT", now)]
        for before, now in mapping["SRT"].items()
        if ("SCT", now) in found
        for scheme in ("SRT", "SNM3", "99SDM")
    }
    return {**old, **found}


def _concepts() -> dict[str, dict[str, dict[str, tuple[str, list[int]]]]]:
    # half a second to load, and needed for coded entries and names alone
    from pydicom.sr._concepts_dict import concepts

    return dict(concepts)
