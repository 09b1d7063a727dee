"""What may leave in a de-identified object: the allow-list, as data. What is not listed here is removed.

A line gives the kind of treatment and the attributes it holds for, wherever in the object they stand. ``BASIC_PROFILE``
gives the action of DICOM PS3.15 Table E.1-1 for those of them that the table names (Basic Application Level
Confidentiality Profile); the rest is not in the table. Kinds:

==========  ======================================================  =============================================
kind        what leaves                                             where the value does not pass
==========  ======================================================  =============================================
number      numbers alone, as many as the attribute holds, none     text: empty; binary: removed
            of them an identifier, none of them spelling a text
vital       the same; other values mean nothing without             the same; an identifier: the file is refused
essential   the same; the image cannot be read without              the file is refused
tag         the number of a standard attribute                      removed
term        words of DICOM's own lists (``terms.py``)               empty
token       the same                                                a keyed hash, so that groups stay apart
label       the same, or a short number                             a keyed hash
device      known makers and models                                 a keyed hash
kernel      known kernels, or letters and two digits as theirs      a keyed hash
name        words of anatomy and radiotherapy, short numbers        a keyed hash
hash        a keyed hash
uid         UIDs of the standard; a keyed hash for all others
date        the day, moved by the patient's own number of days      empty
datetime    the same with its time, without its time zone           empty
time        a valid time                                            empty
zero        nothing: the attribute is empty
dummy       the fixed text of ``DUMMIES``
pseudonym   the patient's pseudonym
items       items of a sequence, each by this list again
table       numbers that rise or fall throughout, no more than      the file is refused
            their descriptor says
==========  ======================================================  =============================================

Coded entries (value, scheme, meaning) are treated as a whole (``terms.known_code``); pixel data in
``pixel_release.py``.
"""

from __future__ import annotations

from pydicom.datadict import tag_for_keyword

_ALLOWED = """
pseudonym PatientID PatientName
zero PatientBirthDate PatientSex AccessionNumber StudyID ReferringPhysicianName OperatorsName ROIInterpreter
zero ContentCreatorName ContentDescription PositionReferenceIndicator ReviewerName ContrastBolusAgent
zero AcquisitionContextSequence ReceiveCoilManufacturerName TransmitCoilManufacturerName ASLTechniqueDescription
zero ASLBolusCutoffTechnique
dummy StructureSetLabel LUTExplanation LUTLabel
hash DeviceSerialNumber SegmentAlgorithmName AlgorithmName AlgorithmVersion TrackingID PulseSequenceName
hash ReceiveCoilName TransmitCoilName MultiCoilElementName ASLCrusherDescription
name ROIName SegmentLabel
device Manufacturer ManufacturerModelName SoftwareVersions
kernel ConvolutionKernel ImageFilter
label FilterType StackID ScatterCorrectionMethod AttenuationCorrectionMethod ReconstructionMethod CardiacFramingType
uid SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID ReferencedFrameOfReferenceUID
uid ReferencedSOPClassUID ReferencedSOPInstanceUID SynchronizationFrameOfReferenceUID ConcatenationUID
uid SOPInstanceUIDOfConcatenationSource DimensionOrganizationUID IrradiationEventUID TrackingUID
uid MultiFrameSourceSOPInstanceUID RelatedFrameOfReferenceUID RadiopharmaceuticalAdministrationEventUID
date StudyDate SeriesDate AcquisitionDate ContentDate InstanceCreationDate StructureSetDate ReviewDate
time StudyTime SeriesTime AcquisitionTime ContentTime InstanceCreationTime StructureSetTime ReviewTime
time RadiopharmaceuticalStartTime RadiopharmaceuticalStopTime ContrastBolusStartTime ContrastBolusStopTime
datetime AcquisitionDateTime FrameAcquisitionDateTime FrameReferenceDateTime RadiopharmaceuticalStartDateTime
datetime RadiopharmaceuticalStopDateTime DecayCorrectionDateTime StartAcquisitionDateTime EndAcquisitionDateTime
essential Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation SamplesPerPixel NumberOfFrames
vital ImagePositionPatient ImageOrientationPatient PixelSpacing RescaleSlope RescaleIntercept PixelPaddingValue
vital PixelPaddingRangeLimit LUTDescriptor RealWorldValueFirstValueMapped RealWorldValueLastValueMapped
vital RealWorldValueIntercept RealWorldValueSlope DoubleFloatRealWorldValueFirstValueMapped
vital DoubleFloatRealWorldValueLastValueMapped DimensionIndexValues ReferencedFrameNumber ReferencedSegmentNumber
vital SegmentNumber ROINumber ReferencedROINumber ContourData ContourOffsetVector FrameOfReferenceTransformationMatrix
vital ConcatenationFrameOffsetNumber MaximumFractionalValue
number PlanarConfiguration SliceThickness SpacingBetweenSlices SliceLocation InstanceNumber SeriesNumber
number AcquisitionNumber ImagesInAcquisition WindowCenter WindowWidth PixelAspectRatio LossyImageCompressionRatio
number RepresentativeFrameNumber KVP XRayTubeCurrent XRayTubeCurrentInmA Exposure ExposureInuAs ExposureInmAs
number ExposureTime ExposureTimeInms GantryDetectorTilt GantryDetectorSlew TableHeight TablePosition TableSpeed
number TableFeedPerRotation SpiralPitchFactor DataCollectionDiameter DataCollectionCenterPatient ReconstructionDiameter
number ReconstructionFieldOfView ReconstructionPixelSpacing ReconstructionTargetCenterPatient ReconstructionAngle
number RevolutionTime TubeAngle SingleCollimationWidth TotalCollimationWidth DistanceSourceToDetector
number DistanceSourceToPatient DistanceSourceToDataCollectionCenter GeneratorPower FocalSpots CTDIvol
number EstimatedDoseSaving WaterEquivalentDiameter CalciumScoringMassFactorDevice CalciumScoringMassFactorPatient
number EnergyWeightingFactor PhotonEnergy EchoTime EchoNumbers EchoTrainLength RepetitionTime InversionTime
number InversionTimes FlipAngle TriggerTime MagneticFieldStrength ImagingFrequency NumberOfAverages
number NumberOfPhaseEncodingSteps PercentSampling PercentPhaseFieldOfView PixelBandwidth AcquisitionMatrix SAR dBdt
number B1rms TemporalPositionIdentifier NumberOfTemporalPositions TemporalResolution NominalInterval LowRRValue
number HighRRValue IntervalsAcquired IntervalsRejected SkipBeats HeartRate CardiacNumberOfImages TriggerWindow
number EffectiveEchoTime DiffusionBValue DiffusionGradientOrientation DiffusionBValueXX DiffusionBValueXY
number DiffusionBValueXZ DiffusionBValueYY DiffusionBValueYZ DiffusionBValueZZ GradientEchoTrainLength RFEchoTrainLength
number MRAcquisitionFrequencyEncodingSteps MRAcquisitionPhaseEncodingStepsInPlane
number MRAcquisitionPhaseEncodingStepsOutOfPlane ParallelReductionFactorInPlane ParallelReductionFactorOutOfPlane
number ParallelReductionFactorSecondInPlane TransmitterFrequency SpecificAbsorptionRateValue GradientOutput
number NumberOfKSpaceTrajectories ChemicalShiftMaximumIntegrationLimitInppm ChemicalShiftMinimumIntegrationLimitInppm
number VelocityEncodingDirection VelocityEncodingMinimumValue VelocityEncodingMaximumValue SlabThickness SlabOrientation
number MidSlabPosition TagAngleFirstAxis TagAngleSecondAxis TagSpacingFirstDimension TagSpacingSecondDimension
number TagThickness TaggingDelay ASLSlabNumber ASLSlabThickness ASLSlabOrientation ASLMidSlabPosition
number ASLPulseTrainDuration ASLBolusCutoffDelayTime ASLCrusherFlowLimit FrameAcquisitionNumber FrameAcquisitionDuration
number AcquisitionDuration InStackPositionNumber TemporalPositionIndex TemporalPositionTimeOffset InConcatenationNumber
number InConcatenationTotalNumber NominalPercentageOfCardiacPhase NominalCardiacTriggerDelayTime
number ActualCardiacTriggerDelayTime NominalRespiratoryTriggerDelayTime ActualRespiratoryTriggerDelayTime
number NominalPercentageOfRespiratoryPhase StartingRespiratoryAmplitude EndingRespiratoryAmplitude RRIntervalTimeNominal
number CardiacRRIntervalSpecified RespiratoryIntervalTime RespiratoryTriggerDelayThreshold TimeRange ContrastBolusVolume
number ContrastBolusTotalDose ContrastFlowRate ContrastFlowDuration ContrastBolusIngredientConcentration
number ContrastBolusAgentNumber NumberOfSlices NumberOfTimeSlices NumberOfTimeSlots NumberOfRRIntervals ImageIndex
number FrameReferenceTime FrameTime ActualFrameDuration DecayFactor DoseCalibrationFactor ScatterFractionFactor
number DeadTimeFactor SliceSensitivityFactor PrimaryPromptsCountsAccumulated SecondaryCountsAccumulated
number RadionuclideTotalDose RadionuclideHalfLife RadionuclidePositronFraction RadiopharmaceuticalVolume
number RadiopharmaceuticalSpecificActivity RadiopharmaceuticalAgentNumber EnergyWindowLowerLimit EnergyWindowUpperLimit
number CoincidenceWindowWidth AxialAcceptance AxialMash TransverseMash DetectorElementSize FieldOfViewDimensions
number AcquisitionStartConditionData AcquisitionTerminationConditionData NumberOfIterations NumberOfSubsets
number TerminationCountsThreshold TerminationTimeThreshold AxialDetectorDimension TransverseDetectorSeparation
number RecommendedDisplayCIELabValue RecommendedDisplayGrayscaleValue ObservationNumber ROIDisplayColor ROIVolume
number ContourNumber NumberOfContourPoints ContourSlabThickness ROIPhysicalPropertyValue
tag DimensionIndexPointer FunctionalGroupPointer FrameIncrementPointer
table LUTData
token ImageType FrameType ScanningSequence SequenceVariant ScanOptions ContentLabel CorrectedImage
term Modality PhotometricInterpretation BodyPartExamined Laterality ImageLaterality FrameLaterality PatientPosition
term PatientOrientation PresentationIntentType LossyImageCompression LossyImageCompressionMethod BurnedInAnnotation
term RecognizableVisualFeatures ContentQualification PixelPresentation VolumetricProperties
term VolumeBasedCalculationTechnique ComplexImageComponent AcquisitionContrast PresentationLUTShape VOILUTFunction
term RescaleType ModalityLUTType MRAcquisitionType AngioFlag VariableFlipAngleFlag InPlanePhaseEncodingDirection
term ResonantNucleus KSpaceFiltering EchoPulseSequence MultipleSpinEcho MultiPlanarExcitation PhaseContrast
term TimeOfFlightContrast Spoiling SteadyStatePulseSequence EchoPlanarPulseSequence SaturationRecovery
term SpectrallySelectedSuppression OversamplingPhase SegmentedKSpaceTraversal GeometryOfKSpaceTraversal
term RectilinearPhaseEncodeReordering CoverageOfKSpace InversionRecovery FlowCompensation FlowCompensationDirection
term PartialFourier PartialFourierDirection ParallelAcquisition ParallelAcquisitionTechnique MagnetizationTransfer
term BloodSignalNulling T2Preparation SpectrallySelectedExcitation SpatialPresaturation Tagging DiffusionDirectionality
term DiffusionAnisotropyType ArterialSpinLabelingContrast ASLContext ASLCrusherFlag ASLBolusCutoffFlag
term ApplicableSafetyStandardAgency SpecificAbsorptionRateDefinition GradientOutputType OperatingMode OperatingModeType
term ReceiveCoilType QuadratureReceiveCoil TransmitCoilType MultiCoilElementUsed CardiacSynchronizationTechnique
term CardiacSignalSource CardiacCyclePosition RespiratoryCyclePosition RespiratoryMotionCompensationTechnique
term RespiratorySignalSource RespiratoryTriggerType BulkMotionCompensationTechnique BulkMotionSignalSource
term BeatRejectionFlag StartingRespiratoryPhase EndingRespiratoryPhase AcquisitionType ConstantVolumeFlag
term FluoroscopyFlag RotationDirection ExposureModulationType ReconstructionAlgorithm ConvolutionKernelGroup
term FilterMaterial MultienergyCTAcquisition ScanArcType DetectorGeometry TypeOfDetectorMotion ContrastBolusIngredient
term ContrastBolusAgentAdministered ContrastBolusAgentDetected ContrastBolusAgentPhase ContrastBolusIngredientOpaque
term SeriesType Units SUVType CountsSource ReprojectionMethod RandomsCorrectionMethod DecayCorrection CollimatorType
term SecondaryCountsType AttenuationCorrectionSource AttenuationCorrectionTemporalRelationship ReconstructionType
term IterativeReconstructionMethod DecayCorrected AttenuationCorrected ScatterCorrected DeadTimeCorrected
term GantryMotionCorrected PatientMotionCorrected CountLossNormalizationCorrected RandomsCorrected
term NonUniformRadialSamplingCorrected SensitivityCalibrated DetectorNormalizationCorrection TableMotion
term TimeOfFlightInformationUsed AcquisitionStartCondition AcquisitionTerminationCondition FieldOfViewShape
term SegmentationType SegmentationFractionalType SegmentAlgorithmType SegmentsOverlap DimensionOrganizationType
term SpatialLocationsPreserved ROIGenerationAlgorithm RTROIInterpretedType RTROIRelationship ROIPhysicalProperty
term ContourGeometricType FrameOfReferenceTransformationType ApprovalStatus AcquisitionTimeSynchronized
term SynchronizationTrigger
items SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence DimensionIndexSequence
items DimensionOrganizationSequence PixelMeasuresSequence PlanePositionSequence PlaneOrientationSequence
items FrameContentSequence FrameVOILUTSequence PixelValueTransformationSequence RealWorldValueMappingSequence
items MeasurementUnitsCodeSequence ModalityLUTSequence FrameAnatomySequence AnatomicRegionSequence
items AnatomicRegionModifierSequence PrimaryAnatomicStructureSequence PrimaryAnatomicStructureModifierSequence
items DerivationImageSequence SourceImageSequence ReferencedImageSequence PurposeOfReferenceCodeSequence
items DerivationCodeSequence ConversionSourceAttributesSequence ReferencedSeriesSequence ReferencedInstanceSequence
items StudiesContainingOtherReferencedInstancesSequence ReferencedImageEvidenceSequence SourceImageEvidenceSequence
items ReferencedSOPSequence UnassignedSharedConvertedAttributesSequence UnassignedPerFrameConvertedAttributesSequence
items IrradiationEventIdentificationSequence CardiacSynchronizationSequence RespiratorySynchronizationSequence
items TemporalPositionSequence ContrastBolusUsageSequence ContrastBolusAgentSequence
items ContrastBolusAdministrationRouteSequence ContrastBolusIngredientCodeSequence CTAcquisitionDetailsSequence
items CTAcquisitionTypeSequence CTAdditionalXRaySourceSequence CTExposureSequence CTGeometrySequence
items CTImageFrameTypeSequence CTPositionSequence CTReconstructionSequence CTTableDynamicsSequence
items CTXRayDetailsSequence CTDIPhantomTypeCodeSequence MRImageFrameTypeSequence MRAveragesSequence MRDiffusionSequence
items DiffusionBMatrixSequence DiffusionGradientDirectionSequence MREchoSequence MRFOVGeometrySequence
items MRImagingModifierSequence MRModifierSequence MRReceiveCoilSequence MRTransmitCoilSequence
items MultiCoilDefinitionSequence MRSpatialSaturationSequence MRTimingAndRelatedParametersSequence
items MRVelocityEncodingSequence MRMetaboliteMapSequence MetaboliteMapCodeSequence ChemicalShiftSequence
items VelocityEncodingAcquisitionSequence SpecificAbsorptionRateSequence OperatingModeSequence
items MRArterialSpinLabelingSequence ASLSlabSequence ASLBolusCutoffTimingSequence PETFrameTypeSequence
items PETFrameAcquisitionSequence PETFrameCorrectionFactorsSequence PETPositionSequence PETReconstructionSequence
items PETTableDynamicsSequence PETDetectorMotionDetailsSequence RadiopharmaceuticalInformationSequence
items RadiopharmaceuticalUsageSequence RadiopharmaceuticalCodeSequence RadionuclideCodeSequence
items AdministrationRouteCodeSequence EnergyWindowRangeSequence PatientOrientationCodeSequence
items PatientOrientationModifierCodeSequence PatientGantryRelationshipCodeSequence ViewCodeSequence
items ViewModifierCodeSequence SegmentSequence SegmentedPropertyCategoryCodeSequence SegmentedPropertyTypeCodeSequence
items SegmentedPropertyTypeModifierCodeSequence SegmentationAlgorithmIdentificationSequence AlgorithmFamilyCodeSequence
items SegmentIdentificationSequence StructureSetROISequence ROIContourSequence ContourSequence ContourImageSequence
items RTROIObservationsSequence RTRelatedROISequence RTROIIdentificationCodeSequence ROIPhysicalPropertiesSequence
items TherapeuticRoleCategoryCodeSequence TherapeuticRoleTypeCodeSequence ReferencedFrameOfReferenceSequence
items RTReferencedStudySequence RTReferencedSeriesSequence FrameOfReferenceRelationshipSequence
"""

_BASIC = """
Z/D PatientID ContentCreatorName ContrastBolusAgent ContentDate ContentTime
Z PatientName PatientBirthDate PatientSex AccessionNumber StudyID ReferringPhysicianName ROIInterpreter ROIName
Z StudyDate StudyTime StructureSetDate StructureSetTime ReviewDate ReviewTime
X/Z/D OperatorsName DeviceSerialNumber AcquisitionDateTime InstanceCreationTime
X/Z ReviewerName AcquisitionContextSequence AcquisitionDate AcquisitionTime
X/D SeriesDate SeriesTime InstanceCreationDate StartAcquisitionDateTime EndAcquisitionDateTime
X RadiopharmaceuticalStartTime RadiopharmaceuticalStopTime ContrastBolusStartTime ContrastBolusStopTime
X RadiopharmaceuticalStartDateTime RadiopharmaceuticalStopDateTime
D StructureSetLabel FrameAcquisitionDateTime FrameReferenceDateTime DecayCorrectionDateTime
U SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID ReferencedFrameOfReferenceUID
U ReferencedSOPInstanceUID SynchronizationFrameOfReferenceUID ConcatenationUID DimensionOrganizationUID
U IrradiationEventUID TrackingUID RelatedFrameOfReferenceUID
X/Z/U* ReferencedImageSequence SourceImageSequence
"""
"""Actions of PS3.15 Table E.1-1 (2026c): X remove, Z empty, D dummy, U replace the UID, by keyword."""

DUMMIES = {"StructureSetLabel": "STRUCTURES", "LUTExplanation": "LOOKUP TABLE", "LUTLabel": "LOOKUP TABLE"}


def _parse(table: str) -> dict[int, str]:
    rules: dict[int, str] = {}
    for line in table.split("\n"):
        kind, *keywords = line.split() or [""]
        for keyword in keywords:
            tag = tag_for_keyword(keyword)
            if tag is None or tag in rules:
                raise ValueError(f"profile: {keyword} is no DICOM keyword, or stands there twice")
            rules[tag] = kind
    return rules


RULES = _parse(_ALLOWED)
"""Tag → kind of treatment."""
BASIC_PROFILE = _parse(_BASIC)
"""Tag → action of the Basic Profile, for the kept attributes that its table names."""
