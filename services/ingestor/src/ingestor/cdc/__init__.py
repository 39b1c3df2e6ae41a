"""Change events to the fluid index: what a source says now is what is found, and nothing else."""
