"""What outsiders check without a stack: sealed records, receipts and evidence bundles; it knows the log's formats and nothing else."""
