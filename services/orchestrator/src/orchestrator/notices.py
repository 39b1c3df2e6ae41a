"""Fixed texts of the product; none of them is made by a model."""

ABSTAIN = "I could not find this in the available documents."
BLOCKED_INPUT = "This request cannot be processed because it does not comply with the usage policy."
BLOCKED_OUTPUT = "The answer cannot be shown because it did not pass the checks."
REVIEW_REJECTED = "A person has looked at your message and cannot answer it here."
PENDING_REVIEW = "A person will look at your message before you get an answer."
EXTRACT = "I cannot give a verified answer; these passages of the documents match your question:"
