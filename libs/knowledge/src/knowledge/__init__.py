"""What ingestor and retriever share about the indexes; they share nothing else."""

from knowledge.postponed import postpone

# LanceDB imports a client of its cloud for a few classes; the rest of it would be half of the time that a service takes to start.
postpone("lance_namespace_urllib3_client")
