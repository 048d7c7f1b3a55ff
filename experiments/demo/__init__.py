"""The demo: prompt tuning, model tuning and instruction tuning on one bundled mixture."""
