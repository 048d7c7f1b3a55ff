"""Whether the bundled base is good enough for comparisons: prompt tuning beside a majority guess and a bag of words, task by task."""
