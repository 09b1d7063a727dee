"""Section ``finetune`` of params.yaml: the budget, the strategy and what each strategy is set by."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from monai_tl.sections import Fraction, Positive, Real, Section, Whole

Arm = Literal["transfer", "scratch"]
StrategyName = Literal[
    "scratch",
    "feature_extraction",
    "layer_retraining",
    "lp_ft",
    "gradual",
    "discriminative",
    "lora",
    "norm_only",
    "full",
    "l2_sp",
    "auto",
]
HEAD_FIRST: tuple[StrategyName, ...] = (
    "layer_retraining",
    "lp_ft",
    "gradual",
    "discriminative",
    "lora",
    "norm_only",
    "l2_sp",
)
"""Strategies that may begin with ``head_steps`` steps of the head alone."""
Rate = Annotated[Real, Field(gt=0.0, le=1.0)]
Seed = Annotated[Whole, Field(ge=0, lt=2**32)]
"""Generators that take no more would give two seeds the same numbers."""
PrecisionName = Literal["float32", "bfloat16"]


class FinetuneConfig(Section):
    """One network for each arm, fold and seed.

    Attributes:
        arms: ``transfer`` starts from the source; ``scratch`` is its twin: same network, data, budget and seeds.
        folds: Which folds to train; each arm's prediction is their mean.
        seeds: Each is one more training of every arm and fold; the verdict resamples them beside the patients.
        strategy: How the transfer arm is tuned (docs/strategies.md); ``auto`` chooses by rule and writes the reason.
            The twin always trains everything.
        min_transferred: The share of the body's parameters that must come across, or loading is an error.
        max_steps: Budget of each arm, optimiser steps.
        head_steps: ``lp_ft``, ``gradual``: of these, the first ones train the head alone; so do the other strategies
            between ``feature_extraction`` and ``full``, where part of the head is fresh. 0 leaves this out.
        n_groups: ``layer_retraining``: how many layer groups train, counted from the output, the head included.
        group_steps: ``gradual``: steps from one thawed group to the next.
        layer_decay: ``discriminative``: the rate of a group is ``learning_rate * layer_decay**(groups to the head)``.
        lora_rank, lora_alpha: ``lora``: rank of each update, and its factor times the rank.
        l2_sp_weight: ``l2_sp``: share of the distance to the pretrained values that a step of rate 1 takes back.
        norm_statistics: Of batch normalisation in layers that train. ``moving`` estimates them anew from the batches;
            ``source`` keeps those that came across, so that the network trains as it will predict, which may count
            where a batch holds one patch. Scale and shift train either way; the twin, having none, moves them.
        feature_variants: ``feature_extraction``: so many epochs of samples differ by augmentation; then they come
            again, and their features are not computed anew. Without augmentation one is enough.
        feature_cache_mib: Disk that these features may take; fewer variants are kept where they do not fit.
        batch_size: Patches a step; with ``privacy: dp_sgd`` patients a step, on average.
        learning_rate: Highest rate of the schedule.
        head_learning_rate: The same while the head trains alone.
        find_learning_rate: Find ``learning_rate`` by a range test before training, in place of the one given.
        weight_decay: Of AdamW: the share of each weight that a step of rate 1 takes away.
        warmup_steps: The rate rises linearly over so many steps at the beginning of each phase.
        schedule: Fall of the rate after that: ``cosine``, ``poly`` (power 0.9), or ``constant``.
        gradient_clip: Longest gradient, as its norm over all parameters; a longer one is shortened. Not used with
            ``privacy: dp_sgd``.
        privacy: ``dp_sgd`` trains with differential privacy, the patient being what is protected: noise hides whether
            one was there (docs/how-to/privacy.md). It needs the extra ``privacy`` and a network without batch
            normalisation; training takes all of its steps, and the last weights are kept.
        privacy_epsilon: ``dp_sgd``: what a training may spend by its last step; the noise follows from it.
        privacy_delta: ``dp_sgd``: well below one by the number of patients.
        patient_clip: ``dp_sgd``: longest gradient of one patient; noise is in proportion to it.
        patient_patches: ``dp_sgd``: patches of a patient in a step; they cost time, and no privacy.
        foreground_fraction: Share of patches that are centred on a voxel of a class, the classes drawn evenly.
        augmentation: Preset of random changes of patches: ``light`` turns and scales them a little and changes
            intensities, ``elastic`` bends them smoothly as well, ``strong`` changes them widely; none mirrors.
        validate_every: Steps between validations; the weights with the best validation Dice are kept.
        ema_decay: Average the weights over about ``1 / (1 - ema_decay)`` steps, and validate and keep the average;
            0 is off.
        average_power: The same with an average in which step n counts about n**average_power, so that it is of the
            last part of the steps, however many there are; for a rate that does not fall. 0 is off.
        patience: Early stop after so many validations without a better Dice.
        precision: Of the network's products in training and validation; weights and optimiser are float32. ``bfloat16``
            halves a step where the processor has it (AVX-512 BF16, AMX; recent GPUs).
        compile: Train with code that torch.compile makes for this network. It takes up to a quarter off a step, the
            more the larger the batch; a minute for each phase of the strategy the first time, seconds later, and a C++
            compiler. Results are others within rounding. Kept features of ``feature_extraction`` need none.
        try_fast: Try fast mode on the validation cases afterwards (docs/inference.md), which takes about as long as
            predicting these three times; without, it is not known what fast mode costs the model.
        n_threads: CPU threads; recorded, because results depend on it to the last bit.
    """

    arms: tuple[Arm, ...] = ("transfer", "scratch")
    folds: tuple[Annotated[Whole, Field(ge=0)], ...] = (0,)
    strategy: StrategyName = "lp_ft"
    seeds: tuple[Seed, ...] = (0,)
    min_transferred: Fraction = 0.5
    max_steps: Annotated[Positive, Field(lt=10**9)] = 200
    head_steps: Annotated[Whole, Field(ge=0)] = Field(default=60, validate_default=True)
    n_groups: Positive = 2
    group_steps: Positive = 10
    layer_decay: Annotated[Real, Field(gt=0.0, le=1.0)] = 0.8
    lora_rank: Positive = 4
    lora_alpha: Annotated[Real, Field(gt=0.0)] = 8.0
    norm_statistics: Literal["moving", "source"] = "moving"
    feature_variants: Positive = 4
    feature_cache_mib: Positive = 4096
    batch_size: Positive = 2
    learning_rate: Rate = 1e-3
    head_learning_rate: Rate = 5e-3
    find_learning_rate: bool = False
    weight_decay: Annotated[Real, Field(ge=0.0)] = 1e-5
    l2_sp_weight: Annotated[Real, Field(ge=0.0)] = Field(default=10.0, validate_default=True)
    warmup_steps: Annotated[Whole, Field(ge=0)] = 10
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    gradient_clip: Annotated[Real, Field(gt=0.0)] = 12.0
    privacy: Literal["none", "dp_sgd"] = Field(default="none", validate_default=True)
    privacy_epsilon: Annotated[Real, Field(gt=0.0)] = 8.0
    privacy_delta: Annotated[Real, Field(gt=0.0, lt=1.0)] = 1e-5
    patient_clip: Annotated[Real, Field(gt=0.0)] = 1.0
    patient_patches: Positive = 1
    ema_decay: Annotated[Real, Field(ge=0.0, lt=1.0)] = 0.0
    average_power: Annotated[Whole, Field(ge=0, le=16)] = Field(default=0, validate_default=True)
    foreground_fraction: Fraction = 0.67
    augmentation: Literal["none", "light", "elastic", "strong"] = "light"
    validate_every: Positive = 25
    patience: Positive = 8
    precision: PrecisionName = "float32"
    compile: bool = Field(default=False, validate_default=True)
    try_fast: bool = True
    n_threads: Positive = 2

    @field_validator("arms", "folds", "seeds")
    @classmethod
    def _are_given_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not values or len(set(values)) != len(values):
            raise ValueError("must be given once each, and at least one")
        return values

    @field_validator("strategy")
    @classmethod
    def _is_one_of_the_arm(cls, strategy: StrategyName, info: ValidationInfo) -> StrategyName:
        # with the source's weights in place it would be `full` under another name
        if strategy == "scratch" and "transfer" in info.data.get("arms", ()):
            raise ValueError("'scratch' takes no weights, but finetune.arms has 'transfer'; set arms: [scratch]")
        return strategy

    @field_validator("head_steps")
    @classmethod
    def _leave_steps_for_the_body(cls, head_steps: int, info: ValidationInfo) -> int:
        max_steps = info.data.get("max_steps")
        strategy = info.data.get("strategy")
        if strategy in HEAD_FIRST and max_steps is not None and head_steps >= max_steps:
            raise ValueError(f"is {head_steps}, but {strategy} needs it below max_steps, which is {max_steps}")
        return head_steps

    @field_validator("l2_sp_weight")
    @classmethod
    def _do_not_overshoot(cls, weight: float, info: ValidationInfo) -> float:
        rate = info.data.get("learning_rate")
        if info.data.get("strategy") == "l2_sp" and rate is not None and weight * rate > 1.0:
            raise ValueError(f"is {weight:g}, but l2_sp needs it at most 1 / learning_rate, which is {1 / rate:g}")
        return weight

    @field_validator("privacy")
    @classmethod
    def _look_at_no_patient_without_noise(cls, privacy: str, info: ValidationInfo) -> str:
        if privacy == "dp_sgd" and info.data.get("find_learning_rate"):
            raise ValueError("dp_sgd hides what find_learning_rate would tell of the patients; set that to false")
        return privacy

    @field_validator("average_power")
    @classmethod
    def _average_in_one_way(cls, power: int, info: ValidationInfo) -> int:
        if power and info.data.get("ema_decay"):
            raise ValueError("and ema_decay are two kinds of average; set one of them to 0")
        return power

    @field_validator("compile")
    @classmethod
    def _compile_plain_steps(cls, is_wanted: bool, info: ValidationInfo) -> bool:
        if is_wanted and info.data.get("privacy") == "dp_sgd":
            raise ValueError("serves steps without differential privacy; set it to false with dp_sgd")
        return is_wanted

    @property
    def seed(self) -> int:
        """The seed of one training: the first."""
        return self.seeds[0]
