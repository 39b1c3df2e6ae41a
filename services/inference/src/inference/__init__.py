"""The model gateway: internal names to deployments, prompts, constrained decoding, and what each answer cost."""
