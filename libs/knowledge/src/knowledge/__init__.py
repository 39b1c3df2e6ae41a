"""What ingestor and retriever share about the indexes; they share nothing else."""
