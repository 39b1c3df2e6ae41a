"""Start the orchestrator: `python -m orchestrator`."""

from orchestrator.main import main

if __name__ == "__main__":
    main()
