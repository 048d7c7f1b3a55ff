"""Asai et al. 2022 (arXiv:2205.11961): what its figures and claims are in our runs."""

from paper_figures import drawing, multitask_prompts
from paper_figures.claims import Claim

TITLE = "Asai et al. 2022: ATTEMPT, multi-task tuning via attentional mixtures of soft prompts"


def figures() -> list[drawing.Figure]:
    """All figures that there are results for."""
    found = multitask_prompts.figure(
        ("prompt", "attempt", "attempt_together", "full"),
        multitask_prompts.of("attempt2022"),
        ("Prompt tuning", "SPoT", "ATTEMPT", "Fine-tuning"),
    )
    return [] if found is None else [found]


def claims() -> list[Claim]:
    """What the paper says."""
    scores = multitask_prompts.of("attempt2022")
    return [
        Claim(
            "on few examples a mixture of source prompts is better than a prompt from scratch",
            "direction only",
            multitask_prompts.lead(scores, "attempt", "prompt"),
        ),
        Claim(
            "tuning the targets together is better than one by one",
            multitask_prompts.printed("ATTEMPT (transfer + multi-task)", "ATTEMPT (transfer)"),
            multitask_prompts.lead(scores, "attempt_together", "attempt"),
        ),
        Claim(
            "it is not worse than model tuning by more than 0.02 (the difference plus 0.02)",
            multitask_prompts.printed("ATTEMPT (transfer + multi-task)", "Fine-tuning"),
            multitask_prompts.lead(scores, "attempt_together", "full", margin=0.02),
        ),
    ]
