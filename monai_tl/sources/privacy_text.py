"""What a model's card says of privacy: the guarantee it was trained under, and what an attack got out of it."""

from __future__ import annotations

from monai_tl.privacy_records import Attack, Estimate, Guarantee, ModelAudit

_NAMES = {"loss": "by loss alone", "likelihood_ratio": "calibrated likelihood ratio"}
_NO_GUARANTEE = (
    "Trained without differential privacy: nothing bounds what somebody who has the weights can learn of the patients "
    "trained on."
)
_NO_AUDIT = "No attack was tried on these weights (`monai-tl audit-privacy`)."


def describe_privacy(guarantee: Guarantee | None, audit: ModelAudit | None, n_models: int = 1) -> str:
    """A section of the card, Markdown.

    Args:
        guarantee: Of the training; None without differential privacy.
        audit: Of these weights; None where there is none.
        n_models: Networks of the run that were trained on patients of one another, this one among them.
    """
    parts = ["## Privacy", _NO_GUARANTEE if guarantee is None else describe_guarantee(guarantee, n_models)]
    if audit is None:
        return "\n\n".join([*parts, _NO_AUDIT])
    parts.append("Membership inference: can somebody with the weights tell whether a patient was trained on?")
    parts.append("\n".join(f"- {line}" for line in describe_attacks(audit)))
    return "\n\n".join(parts)


def describe_guarantee(guarantee: Guarantee, n_models: int = 1) -> str:
    """The guarantee in sentences, with what it does not cover."""
    text = (
        f"Trained by DP-SGD: ε = {guarantee.epsilon:.2f} at δ = {guarantee.delta:.2g} for adding or removing one "
        f"patient with all cases ({guarantee.n_patients} patients, {guarantee.n_steps} steps, each patient in a step "
        f"with probability {guarantee.sample_rate:.4g}, gradients clipped at {guarantee.clip_norm:g}, noise multiplier "
        f"{guarantee.noise_multiplier:.3f}, Rényi accountant). It covers the weights, not the plan beside them "
        "(spacing, intensities, patch size), the scores on validation and test cases, or whatever else was trained on "
        "the same patients."
    )
    if n_models > 1:
        text += (
            f" {n_models} networks of this run were trained on overlapping patients, each with a budget of its own: "
            f"together no more than ε = {n_models * guarantee.epsilon:.2f} at δ = {n_models * guarantee.delta:.2g}."
        )
    return text


def describe_attacks(audit: ModelAudit) -> list[str]:
    """A line for each attack, then what they do not say."""
    return [*(_describe_attack(attack, audit.others) for attack in audit.attacks), *audit.notes]


def _describe_attack(attack: Attack, others: str) -> str:
    held = ""
    if attack.name == "likelihood_ratio":
        kind = "trained on the case or not" if attack.has_members_in_references else "not trained on the case"
        held = f", against {attack.n_references:.3g} networks {kind}"
    return (
        f"{_NAMES[attack.name]}{held}: AUC {_with_interval(attack.auc)}, true positive rate at 1 % false positives "
        f"{_with_interval(attack.true_positive_rate)} ({attack.n_members} patients trained on, {attack.n_others} of "
        f"{others})"
    )


def _with_interval(estimate: Estimate) -> str:
    if estimate.value is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"
