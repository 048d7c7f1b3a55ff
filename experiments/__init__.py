"""One folder a paper or question: what it claims, the command, the cost, our figures beside it."""
