"""Wang et al. 2023 (arXiv:2303.02861): what its figures and claims are in our runs."""

from paper_figures import drawing, multitask_prompts
from paper_figures.claims import Claim

TITLE = "Wang et al. 2023: multitask prompt tuning enables parameter-efficient transfer learning"


def figures() -> list[drawing.Figure]:
    """All figures that there are results for."""
    if not multitask_prompts.of("mpt2023"):
        return []
    found = multitask_prompts.figure(
        ("prompt", "attempt", "mpt_untaught", "mpt", "mpt_together", "full"), _scores(), ("SPoT", "ATTEMPT", "MPT", "Fine-tuning")
    )
    return [] if found is None else [found]


def _scores() -> multitask_prompts.Scores:
    """Its own, and those of ATTEMPT and model tuning on the same targets."""
    return {**multitask_prompts.of("attempt2022"), **multitask_prompts.of("mpt2023")}


def claims() -> list[Claim]:
    """What the paper says."""
    scores = _scores()
    transfer = "MPT (transfer)"
    return [
        Claim(
            "on few examples a prompt adapted from the shared one is better than one from scratch",
            "direction only",
            multitask_prompts.lead(scores, "mpt", "prompt"),
        ),
        Claim(
            "it is better than ATTEMPT",
            multitask_prompts.printed(transfer, "ATTEMPT (transfer)"),
            multitask_prompts.lead(scores, "mpt", "attempt"),
        ),
        Claim(
            "distilling the source tasks' own prompts makes the shared prompt better",
            "direction only",
            multitask_prompts.lead(scores, "mpt", "mpt_untaught"),
        ),
        Claim(
            "tuning the targets together is better than one by one",
            multitask_prompts.printed("MPT (transfer + multi-task)", transfer),
            multitask_prompts.lead(scores, "mpt_together", "mpt"),
        ),
        Claim(
            "it is not worse than model tuning by more than 0.02 (the difference plus 0.02)",
            multitask_prompts.printed(transfer, "Fine-tuning"),
            multitask_prompts.lead(scores, "mpt", "full", margin=0.02),
        ),
    ]
