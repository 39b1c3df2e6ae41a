"""What the services agree on: subjects, streams, identities, and the generated messages under `strata`."""
