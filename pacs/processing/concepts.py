"""Coded concepts (PS3.16): what a plug-in names `codes.SCT.Lung`.

pydicom has the whole dictionary, and importing any of it takes a second and 130 MB in every process. What the shipped
processors use stands here; any other name is looked up there when it is first asked for.
"""

from typing import NamedTuple


class Code(NamedTuple):
    """A concept: Code Value, Coding Scheme Designator, Code Meaning and, rarely, Coding Scheme Version (PS3.3 8.8)."""

    value: str
    scheme_designator: str
    meaning: str
    scheme_version: str | None = None


COMMON = {
    ("DCM", "AcquisitionPlane"): Code("113764", "DCM", "Acquisition Plane"),
    ("DCM", "AttenuationCoefficient"): Code("112031", "DCM", "Attenuation Coefficient"),
    ("DCM", "CalciumScore"): Code("112058", "DCM", "Calcium score"),
    ("DCM", "CertaintyOfFinding"): Code("111012", "DCM", "Certainty of Finding"),
    ("DCM", "Comment"): Code("121106", "DCM", "Comment"),
    ("DCM", "ContrastAdministered"): Code("122086", "DCM", "Contrast administered"),
    ("DCM", "ContrastPhase"): Code("109058", "DCM", "Contrast Phase"),
    ("DCM", "Device"): Code("121007", "DCM", "Device"),
    ("DCM", "ImageView"): Code("111031", "DCM", "Image View"),
    ("DCM", "ImagingMeasurementReport"): Code("126000", "DCM", "Imaging Measurement Report"),
    ("DCM", "MetabolicVolume"): Code("126032", "DCM", "Metabolic Volume"),
    ("DCM", "PeakValueWithinROI"): Code("126031", "DCM", "Peak Value Within ROI"),
    ("DCM", "Suvbsa"): Code("126403", "DCM", "SUVbsa"),
    ("DCM", "Suvbw"): Code("126401", "DCM", "SUVbw"),
    ("DCM", "Suvibw"): Code("126404", "DCM", "SUVibw"),
    ("DCM", "SuvlbmJames128"): Code("126406", "DCM", "SUVlbm(James128)"),
    ("DCM", "SuvlbmJanma"): Code("126405", "DCM", "SUVlbm(Janma)"),
    ("DCM", "TotalLesionGlycolysis"): Code("126033", "DCM", "Total Lesion Glycolysis"),
    ("SCT", "Abdomen"): Code("818981001", "SCT", "Abdomen"),
    ("SCT", "AbdomenAndPelvis"): Code("818982008", "SCT", "Abdomen and Pelvis"),
    ("SCT", "AnkleJoint"): Code("70258002", "SCT", "Ankle joint"),
    ("SCT", "AnteroPosterior"): Code("399348003", "SCT", "antero-posterior"),
    ("SCT", "Axial"): Code("24422004", "SCT", "Axial"),
    ("SCT", "Bone"): Code("272673000", "SCT", "Bone"),
    ("SCT", "Brain"): Code("12738006", "SCT", "Brain"),
    ("SCT", "Breast"): Code("76752008", "SCT", "Breast"),
    ("SCT", "CerebrospinalFluid"): Code("65216001", "SCT", "Cerebrospinal Fluid"),
    ("SCT", "Chest"): Code("816094009", "SCT", "Chest"),
    ("SCT", "ChestAbdomenAndPelvis"): Code("416775004", "SCT", "Chest, Abdomen and Pelvis"),
    ("SCT", "ChestAndAbdomen"): Code("416550000", "SCT", "Chest and Abdomen"),
    ("SCT", "Coronal"): Code("81654009", "SCT", "Coronal"),
    ("SCT", "CranioCaudal"): Code("399162004", "SCT", "cranio-caudal"),
    ("SCT", "Diameter"): Code("81827009", "SCT", "Diameter"),
    ("SCT", "EntireBody"): Code("38266002", "SCT", "Entire body"),
    ("SCT", "Extremity"): Code("66019005", "SCT", "Extremity"),
    ("SCT", "Foot"): Code("56459004", "SCT", "Foot"),
    ("SCT", "GrayMatter"): Code("389081007", "SCT", "Gray Matter"),
    ("SCT", "Hand"): Code("85562004", "SCT", "Hand"),
    ("SCT", "Head"): Code("69536005", "SCT", "Head"),
    ("SCT", "HeadAndNeck"): Code("774007", "SCT", "Head and Neck"),
    ("SCT", "Heart"): Code("80891009", "SCT", "Heart"),
    ("SCT", "Hip"): Code("29836001", "SCT", "Hip"),
    ("SCT", "Knee"): Code("72696002", "SCT", "Knee"),
    ("SCT", "LateroMedial"): Code("399352003", "SCT", "latero-medial"),
    ("SCT", "LeftLateral"): Code("399173006", "SCT", "left lateral"),
    ("SCT", "Lesion"): Code("52988006", "SCT", "Lesion"),
    ("SCT", "Liver"): Code("10200004", "SCT", "Liver"),
    ("SCT", "LowerLeg"): Code("30021000", "SCT", "Lower leg"),
    ("SCT", "LowerLimb"): Code("61685007", "SCT", "Lower limb"),
    ("SCT", "Lung"): Code("39607008", "SCT", "Lung"),
    ("SCT", "Maximum"): Code("56851009", "SCT", "Maximum"),
    ("SCT", "Mean"): Code("373098007", "SCT", "Mean"),
    ("SCT", "Neck"): Code("45048000", "SCT", "Neck"),
    ("SCT", "NeckAndChest"): Code("417437006", "SCT", "Neck and Chest"),
    ("SCT", "NeckChestAbdomenAndPelvis"): Code("416319003", "SCT", "Neck, Chest, Abdomen and Pelvis"),
    ("SCT", "NeckChestAndAbdomen"): Code("416152001", "SCT", "Neck, Chest and Abdomen"),
    ("SCT", "Nodule"): Code("27925004", "SCT", "Nodule"),
    ("SCT", "Organ"): Code("91772007", "SCT", "Organ"),
    ("SCT", "Pelvis"): Code("816092008", "SCT", "Pelvis"),
    ("SCT", "PosteroAnterior"): Code("272479007", "SCT", "postero-anterior"),
    ("SCT", "RightLateral"): Code("399198007", "SCT", "right lateral"),
    ("SCT", "Sagittal"): Code("30730003", "SCT", "Sagittal"),
    ("SCT", "Shoulder"): Code("16982005", "SCT", "Shoulder"),
    ("SCT", "Spine"): Code("421060004", "SCT", "Spine"),
    ("SCT", "Thigh"): Code("68367000", "SCT", "Thigh"),
    ("SCT", "TracheaAndBronchus"): Code("110726009", "SCT", "Trachea and bronchus"),
    ("SCT", "UpperLimb"): Code("53120007", "SCT", "Upper limb"),
    ("SCT", "Volume"): Code("118565006", "SCT", "Volume"),
    ("SCT", "WhiteMatter"): Code("389080008", "SCT", "White Matter"),
    ("UCUM", "CubicCentimeter"): Code("cm3", "UCUM", "cubic centimeter"),
    ("UCUM", "CubicMillimeter"): Code("mm3", "UCUM", "cubic millimeter"),
    ("UCUM", "HounsfieldUnit"): Code("[hnsf'U]", "UCUM", "Hounsfield unit"),
    ("UCUM", "NoUnits"): Code("1", "UCUM", "no units"),
    ("UCUM", "SquareCentimeter"): Code("cm2", "UCUM", "Centimeter**2"),
    ("UCUM", "StandardizedUptakeValueBodySurfaceArea"): Code(
        "cm2/ml{SUVbsa}", "UCUM", "Standardized Uptake Value body surface area"
    ),
    ("UCUM", "StandardizedUptakeValueBodyWeight"): Code("g/ml{SUVbw}", "UCUM", "Standardized Uptake Value body weight"),
    ("UCUM", "StandardizedUptakeValueIdealBodyWeight"): Code(
        "g/ml{SUVibw}", "UCUM", "Standardized Uptake Value ideal body weight"
    ),
    ("UCUM", "StandardizedUptakeValueLeanBodyMassJames128Multiplier"): Code(
        "g/ml{SUVlbm(James128)}", "UCUM", "Standardized Uptake Value lean body mass (James 128 multiplier)"
    ),
    ("UCUM", "StandardizedUptakeValueLeanBodyMassJanma"): Code(
        "g/ml{SUVlbm(Janma)}", "UCUM", "Standardized Uptake Value lean body mass (Janma)"
    ),
}


class Scheme:
    """The concepts of one coding scheme, by pydicom's keyword for their meaning."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, keyword: str) -> Code:
        """Return a concept. Raises `AttributeError` where the scheme has none of that name."""
        known = COMMON.get((self._name, keyword))
        if known is not None:
            return known
        if keyword.startswith("_"):
            raise AttributeError(keyword)
        from pydicom.sr.codedict import codes as dictionary

        return Code(*getattr(getattr(dictionary, self._name), keyword))


class Codes:
    """All coding schemes."""

    def __init__(self) -> None:
        self.DCM, self.SCT, self.UCUM = Scheme("DCM"), Scheme("SCT"), Scheme("UCUM")

    def __getattr__(self, name: str) -> Scheme:
        """Return a scheme by pydicom's name for it, such as RADLEX. Raises `AttributeError` where there is none."""
        if name.startswith("_"):
            raise AttributeError(name)
        from pydicom.sr.codedict import codes as dictionary

        if name not in dictionary.schemes():
            raise AttributeError(name)
        return Scheme(name)


codes = Codes()
